"""The CPU kernel of sparse attentive backtracking is the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.memories import Memory, kernels, make_memory
from relagent.memories.kernels.sequence import SecondDerivativeError
from tests.memories.equality import (
    assert_same,
    check_reset,
    everything,
    only_by_kernels,
    problem,
    shaken,
)

pytestmark = pytest.mark.usefixtures("two_threads_for_any_work")


def make(n: int = 16, **options: int) -> Any:
    torch.manual_seed(0)
    return shaken(make_memory("sab", 3, n, **options)).double()


def compare(memory: Any, **sizes: Any) -> None:
    x, state, starts = problem(memory, **sizes)
    assert kernels.select(type(memory), x) is not None
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    with only_by_kernels():
        found = everything(memory, x, state, starts)
    # The differences of close scores magnify the rounding of both.
    assert_same(found, definition, values=1e-9, gradients=1e-8)


@given(
    k_att=st.integers(1, 4),
    k_top=st.integers(1, 5),
    k_trunc=st.integers(1, 6),
    steps=st.integers(1, 14),
    rows=st.integers(1, 9),
    before=st.integers(0, 10),
    chance=st.sampled_from([0.0, 0.15, 0.6, 1.0]),
    n=st.sampled_from([5, 16, 37, 48]),
)
@settings(max_examples=40, deadline=None)
def test_the_kernel_equals_the_definition(
    k_att: int, k_top: int, k_trunc: int, n: int, **sizes: Any
) -> None:
    compare(make(n, k_att=k_att, k_top=k_top, k_trunc=k_trunc), **sizes)


def test_many_rows_and_a_long_sequence() -> None:
    compare(make(128), steps=60, rows=37, before=30, chance=0.02)


def test_single_precision() -> None:
    memory = make().float()
    x, state, starts = problem(memory, steps=30, rows=5, before=12, chance=0.05)
    with kernels.disable():
        definition = everything(memory, x, state, starts)
    assert_same(everything(memory, x, state, starts), definition, values=1e-4, gradients=1e-3)


def test_equal_scores_fade_as_in_the_definition() -> None:
    memory = make(k_top=2)
    with torch.no_grad():
        memory.attention.energy_weight.zero_()
    compare(memory, steps=20, rows=3, before=8, chance=0.1)


@pytest.mark.parametrize("poison", [float("nan"), 1e10])
def test_nothing_before_a_reset_has_any_influence(poison: float) -> None:
    memory = make()
    x, state, starts = problem(memory, steps=8, rows=4, before=9, chance=0.0)
    check_reset(memory, x, state, starts, poison)


def test_steps_one_by_one_repeat_the_sequence() -> None:
    memory = make()
    x, state, starts = problem(memory, steps=15, rows=4, before=7, chance=0.1)
    with torch.no_grad():
        y, after = memory.unroll(x, state, starts)
        for t in range(len(x)):
            y_t, state = memory.unroll(x[t : t + 1], state, starts[t : t + 1])
            torch.testing.assert_close(y_t[0], y[t])
    for found, expected in zip(state, after, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_second_backward_pass_repeats_the_first_and_a_second_derivative_raises() -> None:
    memory = make()
    x, state, starts = problem(memory, steps=9, rows=3, before=4, chance=0.1)
    weight = memory.cell.recurrent_weight
    loss = memory.unroll(x, state, starts)[0].square().sum()
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.equal(first, second)
    with pytest.raises(SecondDerivativeError, match=r"kernels.disable\(\)"):
        torch.autograd.backward(second.sum())


def test_any_width_has_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = make(5)
    x, state, starts = problem(memory, steps=6, rows=2, before=3, chance=0.1)
    monkeypatch.setattr(Memory, "unroll_definition", lambda *_: pytest.fail("ran the definition"))
    y, after = memory.unroll(x, state, starts)
    assert y.shape[2] == after.c.shape[1] == after.states.shape[2] == 5
