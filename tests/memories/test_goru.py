"""GORU against a literal version, and its rotation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from relagent.memories import MemoryOptionError, make_memory
from relagent.memories.goru import GORU, fft_rotation

from . import literal
from .helpers import FEATURES, HIDDEN, assert_close, gradients, make, sequence, weighted


def turn(angles: Tensor, h: Tensor) -> Tensor:
    """Layer by layer, pair by pair, one scalar at a time."""
    units = list(h)
    for level, layer in enumerate(angles):
        left = iter(layer)
        for i in range(len(units)):
            if (i >> level) % 2 == 0:
                j, angle = i + 2**level, next(left)
                one, other = units[i], units[j]
                units[i] = torch.cos(angle) * one - torch.sin(angle) * other
                units[j] = torch.sin(angle) * one + torch.cos(angle) * other
    return torch.stack(units)


def literal_step(memory: Any, x: Tensor, h: Tensor) -> Tensor:
    n = HIDDEN
    U_r, U_g, U_c = (memory.input_weight[k * n : (k + 1) * n] for k in range(3))
    W_r, W_g = memory.gate_weight[:n], memory.gate_weight[n:]
    r = torch.sigmoid(W_r @ h + U_r @ x + memory.bias[:n])
    g = torch.sigmoid(W_g @ h + U_g @ x + memory.bias[n:])
    c = literal.modrelu(U_c @ x + r * turn(memory.angles, h), memory.nonlinearity.bias)
    return g * h + (1 - g) * c


def test_goru_equals_the_literal_version() -> None:
    memory: Any = make("goru", seed=4)
    problem = sequence(120, 2, seed=5, chance=0.03)
    leaves = [problem.x.requires_grad_(), *memory.parameters()]
    outputs: list[list[Tensor]] = [[] for _ in range(problem.steps)]
    for b in range(problem.rows):
        h = torch.zeros(HIDDEN).double()
        for t in range(problem.steps):
            h = literal_step(memory, problem.x[t, b], 0 * h if problem.starts[t, b] else h)
            outputs[t].append(h)
    expected = torch.stack([torch.stack(rows) for rows in outputs])

    y, last = memory.unroll(problem.x, memory.initial_state(2), problem.starts)
    assert_close(y, expected, 1e-10)
    assert_close(last.h, expected[-1], 1e-10)
    wanted = gradients(weighted(expected), leaves)
    for gradient, other in zip(gradients(weighted(y), leaves), wanted, strict=True):
        assert_close(gradient, other, 1e-10)


@given(levels=st.integers(0, 6), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_rotation_is_orthogonal_for_any_angles(levels: int, seed: int) -> None:
    torch.manual_seed(seed)
    n = 2**levels
    Q = fft_rotation(10 * torch.randn(levels, n // 2).double())
    assert_close(Q.T @ Q, torch.eye(n).double(), 1e-12)
    assert Q.count_nonzero() == n * n  # every unit reaches every other


def test_the_rotation_is_the_identity_for_no_angles() -> None:
    assert torch.equal(fft_rotation(torch.zeros(3, 4)), torch.eye(8))


def test_the_rotation_equals_the_literal_version() -> None:
    torch.manual_seed(0)
    angles, h = torch.randn(4, 8).double(), torch.randn(16).double()
    assert_close(fft_rotation(angles) @ h, turn(angles, h), 1e-12)


def test_the_rotation_stays_orthogonal_in_training() -> None:
    torch.manual_seed(0)
    memory: Any = make_memory("goru", FEATURES, 64)
    before = memory.angles.detach().clone()
    optimizer = torch.optim.SGD(memory.parameters(), lr=10.0)
    for _ in range(5):
        y, _ = memory.unroll(torch.randn(10, 4, FEATURES), memory.initial_state(4))
        optimizer.zero_grad()
        y.square().mean().backward()
        optimizer.step()
    assert (memory.angles - before).abs().max() > 1e-3
    Q = fft_rotation(memory.angles.detach())
    assert (Q.T @ Q - torch.eye(64)).norm() <= 1e-5


def test_the_parameter_count_is_the_published_one() -> None:
    """n = 128 on the copy task (10 features in, 9 classes out), with the layer to the classes."""
    model = nn.Sequential(make_memory("goru", 10, 128), nn.Linear(128, 9))
    assert sum(parameter.numel() for parameter in model.parameters()) == 38_601


def test_the_reset_gate_starts_open() -> None:
    memory: Any = make_memory("goru", FEATURES, 8)
    assert torch.equal(memory.bias, torch.tensor([2.0] * 8 + [0.0] * 8))


def test_a_size_that_is_no_power_of_2_is_named_with_its_neighbours() -> None:
    for size, neighbours in ((100, "64 or 128"), (0, "1 or 2")):
        with pytest.raises(MemoryOptionError, match=rf"not {size}: .* choose {neighbours}$"):
            GORU.check_hidden_size(size)
    with pytest.raises(MemoryOptionError, match="not 100"):
        make_memory("goru", FEATURES, 100)
