"""Sparse attentive backtracking against a literal version: its sparsity and its truncation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from relagent.memories import MemoryOptionError, make_memory
from relagent.memories.sab import SparseAttention

from . import literal
from .helpers import (
    FEATURES,
    HIDDEN,
    Problem,
    assert_close,
    gradients,
    make,
    problems,
    sequence,
    weighted,
)


def literal_weights(energies: list[Tensor], k_top: int) -> list[Tensor]:
    if len(energies) <= k_top:
        exponentials = [torch.exp(e) for e in energies]
        return [e / torch.stack(exponentials).sum() for e in exponentials]
    threshold = sorted(energies, key=lambda e: -e.item())[k_top]
    above = [e - threshold if e.item() > threshold.item() else 0 * e for e in energies]
    total = sum(above[1:], above[0])
    return [a / total if total.item() > 1e-7 else a / 1e-7 for a in above]


def literal_unroll(memory: Any, problem: Problem) -> Tensor:
    """One row, one step, one remembered state at a time."""
    w = memory.attention.energy_weight
    outputs: list[list[Tensor]] = [[] for _ in range(problem.steps)]
    for b in range(problem.rows):
        for t in range(problem.steps):
            if t == 0 or problem.starts[t, b]:
                h = c = torch.zeros(HIDDEN).double()
                remembered: list[Tensor] = []
                step = 0
            if step > 0 and step % memory.k_trunc == 0:
                h, c = h.detach(), c.detach()
            h, c = literal.lstm_cell(memory.cell, problem.x[t, b], h, c)
            energies = [w @ torch.cat([torch.tanh(h), m]) for m in remembered]
            context = torch.zeros(HIDDEN).double()
            for weight, m in zip(
                literal_weights(energies, memory.attention.k_top), remembered, strict=True
            ):
                context = context + weight * m
            step += 1
            if step % memory.k_att == 0:
                remembered.append(h)
            h = h + context
            outputs[t].append(h + memory.context_weight @ context)
    return torch.stack([torch.stack(rows) for rows in outputs])


def compare(memory: Any, problem: Problem) -> None:
    leaves = [problem.x.requires_grad_(), *memory.parameters()]
    expected = literal_unroll(memory, problem)
    y, _ = memory.unroll(problem.x, memory.initial_state(problem.rows), problem.starts)
    assert_close(y, expected, 1e-10)
    wanted = gradients(weighted(expected), leaves)
    for gradient, other in zip(gradients(weighted(y), leaves), wanted, strict=True):
        # The differences of close scores magnify the rounding of both.
        assert_close(gradient, other, 1e-9)


def test_a_long_sequence_with_resets_equals_the_literal_version() -> None:
    memory = make("sab", seed=1, k_att=2, k_top=3, k_trunc=5)
    compare(memory, sequence(200, 2, seed=2, chance=0.03))


@given(
    problem=problems(max_rows=3),
    k_att=st.integers(1, 4),
    k_top=st.integers(1, 4),
    k_trunc=st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_any_options_equal_the_literal_version(
    problem: Problem, k_att: int, k_top: int, k_trunc: int
) -> None:
    compare(make("sab", seed=problem.seed, k_att=k_att, k_top=k_top, k_trunc=k_trunc), problem)


# --- Sparsity ------------------------------------------------------------------------------------


def attention(k_top: int, size: int = 1) -> SparseAttention:
    """A one-unit attention whose score is the remembered value itself."""
    module = SparseAttention(size, k_top).double()
    module.energy_weight.data = torch.tensor([0.5, 1.0]).double()
    return module


def look(k_top: int, values: list[float], occupied: list[bool] | None = None) -> Tensor:
    states = torch.tensor(values).double().view(1, -1, 1)
    mask = torch.tensor([occupied or [True] * len(values)])
    _, weights = attention(k_top)(torch.zeros(1, 1).double(), states, mask)
    found: Tensor = weights[0].detach()
    return found


def test_the_next_best_score_is_subtracted_from_the_best() -> None:
    assert_close(
        look(2, [1.0, 5.0, 2.0, 4.0]), torch.tensor([0, 0.6, 0, 0.4], dtype=torch.float64), 1e-12
    )


def test_as_many_as_are_kept_share_by_softmax() -> None:
    values = torch.tensor([1.0, 5.0]).double()
    assert_close(look(2, values.tolist()), values.softmax(0), 1e-12)


def test_empty_slots_do_not_count() -> None:
    assert torch.equal(
        look(2, [9.0, 0.0, 9.0], [False, True, False]), torch.tensor([0, 1, 0.0]).double()
    )
    weights = look(1, [9.0, 3.0, 1.0], [False, True, True])
    assert torch.equal(weights, torch.tensor([0, 1, 0.0]).double())
    assert torch.equal(look(1, [9.0, 9.0], [False, False]), torch.zeros(2).double())


def test_a_tie_of_the_best_fades_instead_of_dividing_by_0() -> None:
    module = attention(1)
    states = torch.tensor([2.0, 2.0, 1.0]).double().view(1, 3, 1).requires_grad_()
    context, weights = module(torch.zeros(1, 1).double(), states, torch.ones(1, 3).bool())
    assert not weights.any()
    (gradient,) = torch.autograd.grad(context.sum(), states)
    assert torch.isfinite(gradient).all()


@given(seed=st.integers(0, 10_000), k_top=st.integers(1, 5), slots=st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_at_most_k_top_states_have_weight_and_weights_sum_to_1(
    seed: int, k_top: int, slots: int
) -> None:
    torch.manual_seed(seed)
    module = SparseAttention(HIDDEN, k_top).double()
    states = torch.randn(3, slots, HIDDEN).double()
    occupied = torch.rand(3, slots) < 0.6
    context, weights = module(torch.randn(3, HIDDEN).double(), states, occupied)
    assert torch.all(weights >= 0)
    assert not weights[~occupied].any()
    assert torch.all(weights.count_nonzero(dim=1) <= k_top)
    assert_close(weights.sum(dim=1), occupied.any(dim=1).double(), 1e-12)
    assert_close(context, (weights.unsqueeze(2) * states).sum(dim=1), 1e-12)


def test_the_query_drops_out_of_a_linear_score() -> None:
    torch.manual_seed(0)
    module = SparseAttention(HIDDEN, 2).double()
    states, occupied = torch.randn(1, 6, HIDDEN).double(), torch.ones(1, 6).bool()
    one, other = (module(torch.randn(1, HIDDEN).double(), states, occupied)[1] for _ in range(2))
    assert_close(one, other, 1e-12)


# --- Truncation ----------------------------------------------------------------------------------


def influence(memory: Any, steps: int, starts: Tensor | None = None) -> Tensor:
    """Whether the output at step t (row of the table) has a gradient in the input at step u."""
    x = sequence(steps, 1, seed=7).x.requires_grad_()
    y, _ = memory.unroll(x, memory.initial_state(1), starts)
    rows = [gradients(y[t].sum(), [x])[0].any(dim=2)[:, 0] for t in range(steps)]
    return torch.stack(rows)


def test_the_recurrence_is_cut_every_k_trunc_steps() -> None:
    memory = make("sab", k_trunc=4, k_att=100)  # nothing is ever remembered
    t, u = torch.arange(12).view(-1, 1), torch.arange(12)
    assert torch.equal(influence(memory, 12), (u <= t) & (u // 4 == t // 4))


def test_the_cuts_are_counted_from_the_start_of_the_rows_episode() -> None:
    memory = make("sab", k_trunc=4, k_att=100)
    starts = torch.zeros(12, 1).bool()
    starts[3] = True
    t, u = torch.arange(12).view(-1, 1), torch.arange(12)
    chunk = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3])
    assert torch.equal(influence(memory, 12, starts), (u <= t) & (chunk[u] == chunk[t]))


def test_attention_reaches_back_beyond_the_cut() -> None:
    memory = make("sab", k_trunc=4, k_att=2, k_top=3)
    reached = influence(memory, 12)
    assert reached[11, :8].any()  # two cuts ago
    assert not reached[0, 1:].any()


def test_every_k_att_th_state_is_remembered_row_by_row() -> None:
    memory = make("sab", k_att=3, k_top=2, k_trunc=5)
    starts = torch.zeros(10, 2).bool()
    starts[4, 1] = True
    _, state = memory.unroll(sequence(10, 2, seed=1).x, memory.initial_state(2), starts)
    assert state.time.tolist() == [9, 5]
    assert state.occupied.sum(dim=1).tolist() == [3, 2]
    assert not state.states[~state.occupied].any()


def test_slots_that_nobody_needs_are_dropped() -> None:
    memory = make("sab", k_att=1)
    _, state = memory.unroll(sequence(10, 2, seed=1).x, memory.initial_state(2))
    assert state.states.shape[1] == 10
    assert memory.reset(state, torch.tensor([True, False])).states.shape[1] == 10
    assert memory.reset(state, torch.tensor([True, True])).states.shape[1] == 0


# --- Sizes and options ---------------------------------------------------------------------------


def test_the_parameter_count_differs_from_the_published_one_as_explained() -> None:
    """n = 128 on the copy task (10 features in, 9 classes out), with the layer to the classes.

    The published 74,249 have a second bias in the LSTM, and a layer to the classes that reads
    h and the context; here P mixes the context into y, and the layer reads y.
    """
    model = nn.Sequential(make_memory("sab", 10, 128), nn.Linear(128, 9))
    second_bias, second_half, P = 4 * 128, 9 * 128, 128 * 128
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 74_249 - second_bias - second_half + P == 88_969


@pytest.mark.parametrize("option", ["k_att", "k_top", "k_trunc"])
def test_an_option_below_1_is_named(option: str) -> None:
    with pytest.raises(MemoryOptionError, match=rf"{option}=0.*choose at least 1$"):
        make_memory("sab", FEATURES, HIDDEN, **{option: 0})
