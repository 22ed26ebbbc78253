"""Attention, depth, and the gradient that comes through attention, against direct computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from relagent.analysis.attention_map import attention_matrix
from relagent.analysis.gradients import gradient_norms, hidden_gradients
from relagent.analysis.measures import (
    attended_age,
    attention_entropy,
    gradient_paths,
    last_step_depths,
    look_back,
    remembered,
)
from relagent.memories import MEMORIES, Attention, make_memory

T, B, F, H = 9, 2, 3, 4


@pytest.fixture(params=sorted(MEMORIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sequence(seed: int = 0) -> Tensor:
    return torch.randn(T, B, F, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def last(outputs: Tensor) -> Tensor:
    return outputs[-1].sin().sum()


def test_the_parts_of_the_gradient_add_up(name: str) -> None:
    memory = make_memory(name, F, H).double()
    paths = gradient_paths(memory, sequence(), last)
    torch.testing.assert_close(paths.total, gradient_norms(memory, sequence(), last))
    assert (paths.total <= paths.recurrence + paths.attention + 1e-12).all()
    assert ((paths.share >= 0) & (paths.share <= 1)).all()
    if hasattr(memory, "attention"):
        assert paths.attention[0].all(), "every state is remembered, or was read by one that is"
    else:
        assert not paths.attention.any()
        assert not paths.share.any()


def test_recurrence_alone_is_the_product_of_its_jacobians() -> None:
    """With every context fixed, ds_T/dh_t = Π_k V-steps: here φ' V, taken by hand."""
    memory = make_memory("mem-rnn", F, H).double()
    x = sequence(1)[:, :1]
    with torch.no_grad():
        s, _, _ = memory.trace(x, memory.initial_state(1))
    cell: Any = memory.cell
    before = torch.cat([torch.zeros_like(s[:1]), s[:-1]])[:, 0]
    a = x[:, 0] @ cell.input_weight.T + before @ cell.recurrent_weight.T + cell.bias
    steps = (1 - a.tanh().square())[:, :, None] * cell.recurrent_weight  # ∂h_t/∂s_{t-1}
    gradient = s[-1, 0].cos()  # of sin, at s_T; ∂s/∂h = 1
    expected = [gradient]
    for step in reversed(range(1, T)):
        expected.insert(0, expected[0] @ steps[step])
    paths = gradient_paths(memory, x, last)
    torch.testing.assert_close(paths.recurrence[:, 0], torch.stack(expected).norm(dim=1).detach())


def test_measuring_leaves_the_memory_as_it_was(name: str) -> None:
    memory = make_memory(name, F, H).double()
    before = hidden_gradients(memory, sequence(2), last)
    gradient_paths(memory, sequence(2), last)
    look_back(memory, sequence(2))
    torch.testing.assert_close(hidden_gradients(memory, sequence(2), last), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in memory.parameters())


def look(weights: list[list[float]], ages: list[list[int]]) -> Attention:
    """Of one row; the rest is of no interest here."""
    w, a = torch.tensor(weights)[:, None], torch.tensor(ages)[:, None]
    none = torch.zeros(len(weights), 1, dtype=torch.int64)
    return Attention(w, torch.zeros_like(w), a, none.bool(), none - 1)


def test_numbers_of_a_look_made_by_hand() -> None:
    seen = look([[0.0, 1.0], [0.5, 0.5], [0.9, 0.1]], [[-1, 0], [1, 0], [2, 0]])
    expected = [0, math.log(2), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))]
    torch.testing.assert_close(attention_entropy(seen)[:, 0], torch.tensor(expected))
    torch.testing.assert_close(attended_age(seen)[:, 0], torch.tensor([0.0, 0.5, 1.8]))
    assert remembered(seen)[:, 0].tolist() == [1, 2, 2]
    # s_3 reads h_1 and h_3; h_3 reads s_2, which reads h_2: one factor.
    assert last_step_depths(seen).tolist() == [0, 1, 0]


def test_what_gets_less_than_an_equal_share_is_not_noticed() -> None:
    seen = look([[0.0, 1.0], [0.5, 0.5], [0.1, 0.9]], [[-1, 0], [1, 0], [2, 0]])
    assert last_step_depths(seen).tolist() == [0, 1, 0]
    # s_3 does not notice h_1; s_2 does, through equal shares: s_3 - h_3 - s_2 - h_1.
    assert last_step_depths(seen, noticed=True).tolist() == [1, 1, 0]


def test_full_memory_has_depth_zero_and_a_buffer_has_not() -> None:
    x = sequence(3)
    full = look_back(make_memory("mem", F, H).double(), x)
    short = look_back(make_memory("rel", F, H, nu=2, rho=0).double(), x)
    assert full is not None and short is not None
    assert not last_step_depths(full).any()
    # s_T reads h_T and h_{T-1}; each factor V leads one step and one more back.
    assert last_step_depths(short, row=1).tolist() == [4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert remembered(short).max() == 2


def test_only_memories_that_can_tell_are_traced(name: str) -> None:
    found = look_back(make_memory(name, F, H).double(), sequence(4))
    if name in ("mem", "rel", "mem-rnn", "rel-rnn"):
        assert found is not None
        np.testing.assert_allclose(found.weights.sum(dim=2), 1)
        matrix = attention_matrix(found.weights[:, 1], found.ages[:, 1])
        np.testing.assert_allclose(np.nansum(matrix, axis=1), 1)
    else:
        assert found is None
