"""RNN, orth-RNN and exp-RNN: the recurrence, and what keeps it a rotation."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from relagent.memories import MemoryOptionError, make_memory
from relagent.memories.orthogonal import henaff_skew

from . import literal
from .helpers import (
    FEATURES,
    HIDDEN,
    Problem,
    assert_close,
    assert_same_state,
    gradients,
    implementations,
    make,
    sequence,
    weighted,
)

FAMILY = ["rnn", "orth-rnn", "exp-rnn"]


def literal_unroll(memory: Any, problem: Problem, V: Tensor) -> Tensor:
    """Row by row, step by step: h = φ(U x + V h + b)."""
    cell = memory.cell
    outputs: list[list[Tensor]] = [[] for _ in range(problem.steps)]
    for b in range(problem.rows):
        h = torch.zeros(HIDDEN).double()
        for t in range(problem.steps):
            if problem.starts[t, b]:
                h = torch.zeros(HIDDEN).double()
            z = cell.input_weight @ problem.x[t, b] + V @ h
            if isinstance(cell.bias, nn.Parameter):
                z = z + cell.bias
            h = literal.nonlinearity(cell, z)
            outputs[t].append(h)
    return torch.stack([torch.stack(rows) for rows in outputs])


def exponential(below: Tensor) -> Tensor:
    """exp(A) from its power series; A from the entries below its diagonal, row by row."""
    entries = iter(below)
    A = torch.zeros(HIDDEN, HIDDEN).double()
    for i in range(HIDDEN):
        for j in range(i):
            sign = torch.zeros(HIDDEN, HIDDEN).double()
            sign[i, j], sign[j, i] = 1, -1
            A = A + sign * next(entries)
    total = term = torch.eye(HIDDEN).double()
    for k in range(1, 80):
        term = term @ A / k
        total = total + term
    return total


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "modrelu"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_recurrence_equals_the_literal_version(name: str, nonlinearity: str) -> None:
    memory: Any = make(name, seed=2, nonlinearity=nonlinearity)
    if name != "exp-rnn":
        with torch.no_grad():
            memory.cell.recurrent_weight /= 2  # relu must not explode
    problem = sequence(150, 2, seed=3, chance=0.03)
    leaves = [problem.x.requires_grad_(), *memory.parameters()]

    V = memory.cell.recurrent_weight
    if name == "exp-rnn":
        V = exponential(memory.orthogonal_parameters()[0])
    expected = literal_unroll(memory, problem, V)
    wanted = gradients(weighted(expected), leaves)
    for implementation in implementations(name).values():
        with implementation():
            y, last = memory.unroll(problem.x, memory.initial_state(2), problem.starts)
        assert_close(y, expected, 1e-10)
        assert_close(last.h, expected[-1], 1e-10)
        for gradient, other in zip(gradients(weighted(y), leaves), wanted, strict=True):
            assert_close(gradient, other, 1e-10)


def test_rnn_equals_torch() -> None:
    memory: Any = make("rnn")
    peer: Any = nn.RNN(FEATURES, HIDDEN).double()
    peer.weight_ih_l0.data = memory.cell.input_weight.data
    peer.weight_hh_l0.data = memory.cell.recurrent_weight.data
    peer.bias_ih_l0.data = memory.cell.bias.data
    peer.bias_hh_l0.data.zero_()
    x = sequence(30, 3, seed=2).x
    for implementation in implementations("rnn").values():
        with implementation():
            y, last = memory.unroll(x, memory.initial_state(3))
        assert_close(y, peer(x)[0], 1e-12)
        assert_close(last.h, y[-1], 0)


def test_rnn_is_mem_rnn_without_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Any = make("mem-rnn")
    plain: Any = make("rnn")
    plain.cell.load_state_dict(memory.cell.state_dict())
    monkeypatch.setattr(
        memory.attention,
        "forward",
        lambda s, states, occupied: (
            torch.zeros_like(s),
            torch.zeros_like(occupied, dtype=s.dtype),
        ),
    )
    problem = sequence(25, 3, seed=6)
    with implementations("mem-rnn")["definition"]():
        y, _ = memory.unroll(problem.x, memory.initial_state(3), problem.starts)
        z, _ = plain.unroll(problem.x, plain.initial_state(3), problem.starts)
    assert_close(y, z, 1e-12)


# --- Rotations -----------------------------------------------------------------------------------


def distance_from_rotations(V: Tensor) -> float:
    V = V.detach().double()
    return float((V.T @ V - torch.eye(len(V)).double()).norm())


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_henaff_turns_pairs_by_angles_between_minus_pi_and_0(size: int) -> None:
    torch.manual_seed(size)
    A = henaff_skew(size)
    assert torch.equal(A, -A.T)
    angles = torch.stack([A[k, k + 1] for k in range(0, size - 1, 2)]) if size > 1 else A[:0, 0]
    assert len(angles) == size // 2
    assert torch.all((-math.pi < angles) & (angles < 0))
    assert A.count_nonzero() == 2 * len(angles)
    for k, angle in enumerate(angles.tolist()):
        turn = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        )
        pair = slice(2 * k, 2 * k + 2)
        assert_close(torch.matrix_exp(A)[pair, pair], turn, 1e-5)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("size", [1, 7, 128])
def test_every_recurrence_starts_orthogonal(name: str, size: int) -> None:
    memory: Any = make_memory(name, FEATURES, size)
    assert distance_from_rotations(memory.recurrent_matrix()) <= 1e-5


def train(memory: Any, updates: int, learning_rate: float) -> None:
    """Some steps of stochastic gradient descent on a random target."""
    optimizer = torch.optim.SGD(memory.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        x = torch.randn(12, 4, memory.input_size, generator=generator)
        target = torch.randn(12, 4, memory.hidden_size, generator=generator)
        y, _ = memory.unroll(x, memory.initial_state(4))
        optimizer.zero_grad()
        (y - target).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("nonlinearity", ["tanh", "modrelu"])
def test_exp_rnn_stays_orthogonal_however_it_is_trained(nonlinearity: str) -> None:
    torch.manual_seed(0)
    memory: Any = make_memory("exp-rnn", FEATURES, 128, nonlinearity=nonlinearity)
    before = memory.recurrent_matrix().detach()
    train(memory, updates=8, learning_rate=100.0)  # absurdly fast, to go far
    after = memory.recurrent_matrix().detach()
    assert (after - before).norm() > 0.5
    assert distance_from_rotations(after) <= 1e-5
    with torch.no_grad():
        memory.orthogonal_parameters()[0].add_(torch.randn(128 * 127 // 2))  # and far from there
    assert distance_from_rotations(memory.recurrent_matrix()) <= 1e-5


def test_orth_rnn_is_free_after_its_start() -> None:
    torch.manual_seed(0)
    memory: Any = make_memory("orth-rnn", FEATURES, 16)
    train(memory, updates=3, learning_rate=1.0)
    assert distance_from_rotations(memory.recurrent_matrix()) > 1e-3


def test_exp_rnn_keeps_the_length_of_its_state() -> None:
    """With nothing to read and no bias, a thousand steps neither shrink nor stretch it."""
    memory: Any = make("exp-rnn", nonlinearity="modrelu")
    nn.init.zeros_(memory.cell.nonlinearity.bias)
    start = memory.initial_state(2)._replace(h=torch.randn(2, HIDDEN).double())
    y, _ = memory.unroll(torch.zeros(1000, 2, FEATURES).double(), start)
    assert_close(y.norm(dim=2), start.h.norm(dim=1).expand(1000, 2), 1e-10)


def test_exp_rnn_says_which_parameters_want_the_smaller_learning_rate() -> None:
    memory: Any = make_memory("exp-rnn", FEATURES, 8)
    (skew,) = memory.orthogonal_parameters()
    assert skew.shape == (8 * 7 // 2,)
    others = [p for p in memory.parameters() if p is not skew]
    assert len(others) == len(list(memory.parameters())) - 1
    optimizer = torch.optim.SGD([{"params": others, "lr": 0.1}, {"params": [skew], "lr": 0.0}])
    before = memory.recurrent_matrix().detach().clone()
    u = memory.cell.input_weight.detach().clone()
    y, _ = memory.unroll(torch.randn(5, 2, FEATURES), memory.initial_state(2))
    y.square().sum().backward()
    assert skew.grad.any()
    optimizer.step()
    assert torch.equal(memory.recurrent_matrix(), before)
    assert not torch.equal(memory.cell.input_weight, u)


def test_exp_rnn_computes_its_exponential_once_per_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory: Any = make("exp-rnn")
    calls = []
    exact = torch.matrix_exp

    def counted(A: Tensor) -> Tensor:
        calls.append(A)
        return exact(A)

    monkeypatch.setattr(torch, "matrix_exp", counted)
    x = sequence(9, 2, seed=1).x
    memory.unroll(x, memory.initial_state(2))
    assert len(calls) == 1
    with parametrize.cached():
        state = memory.initial_state(2)
        for x_t in x:
            _, state = memory.step(x_t, state)
    assert len(calls) == 2


@pytest.mark.parametrize("name", FAMILY)
def test_copies_and_saved_parameters_make_the_same_memory(name: str) -> None:
    memory: Any = make(name)
    problem = sequence(10, 2, seed=1)
    y, last = memory.unroll(problem.x, memory.initial_state(2), problem.starts)
    loaded: Any = make(name, seed=99)
    loaded.load_state_dict(memory.state_dict())
    for other in (copy.deepcopy(memory), loaded):
        z, other_last = other.unroll(problem.x, other.initial_state(2), problem.starts)
        assert_close(z, y, 0)
        assert_same_state(other_last, last, 0)


# --- Sizes and options ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("orth-rnn", 19_081), ("exp-rnn", 10_697)])
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    """n = 128 on the copy task (10 features in, 9 classes out), with the layer to the classes."""
    model = nn.Sequential(make_memory(name, 10, 128), nn.Linear(128, 9))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", FAMILY)
def test_an_unknown_nonlinearity_is_named_in_one_line(name: str) -> None:
    with pytest.raises(MemoryOptionError, match=r"^unknown nonlinearity 'sin': choose .*modrelu$"):
        make_memory(name, FEATURES, HIDDEN, nonlinearity="sin")
