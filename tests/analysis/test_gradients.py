"""Total derivatives against finite differences and against what they must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from relagent.analysis.gradients import (
    AnalysisInputError,
    gradient_norms,
    jacobian_norms,
    jacobians,
    unroll_with_handles,
    vector_norms,
)
from relagent.memories import MEMORIES, Memory, MemoryInputError, make_memory

T, B, F, H = 7, 2, 3, 4


@pytest.fixture(params=sorted(MEMORIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sequence(seed: int = 0, steps: int = T) -> Tensor:
    return torch.randn(
        steps, B, F, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def test_handles_change_no_output(name: str) -> None:
    memory = make_memory(name, F, H).double()
    x = sequence()
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[3, 1] = True
    run = unroll_with_handles(memory, x, episode_starts=starts)
    y, state = memory.unroll_definition(x, memory.initial_state(B), starts)
    torch.testing.assert_close(run.outputs, y, rtol=0, atol=1e-12)
    for ours, theirs in zip(run.state, state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert run.handles.shape == (T, B, H)


def test_jacobians_equal_finite_differences(name: str) -> None:
    """Push h_t by ±ε inside the memory and look at the last output."""
    memory = make_memory(name, F, H).double()
    x = sequence(1)
    ours = jacobians(memory, x)
    assert ours.shape == (T, B, H, H)

    def last_output(t: int, unit: int, push: float) -> Tensor:
        from relagent.analysis import gradients

        state = memory.initial_state(B)
        y = torch.empty(0)
        with torch.no_grad():
            for now in range(T):
                handle = torch.zeros(B, H, dtype=torch.float64)
                if now == t:
                    handle[:, unit] = push
                y, _, state = gradients._step(memory, x[now], state, handle)
        return y

    for t in (0, T - 2, T - 1):
        for unit in range(H):
            slope = (last_output(t, unit, 1e-6) - last_output(t, unit, -1e-6)) / 2e-6
            torch.testing.assert_close(ours[t, :, :, unit], slope, rtol=1e-5, atol=1e-7)


def test_norms_are_those_of_the_jacobians(name: str) -> None:
    memory = make_memory(name, F, H).double()
    x = sequence(2)
    full = jacobians(memory, x, step=4).square().sum(dim=(2, 3)).sqrt()
    torch.testing.assert_close(jacobian_norms(memory, x, step=4), full)
    assert not full[5:].any(), "what comes after the step cannot matter to it"


def test_random_probes_estimate_the_norm() -> None:
    memory = make_memory("mem-rnn", F, H).double()
    x = sequence(3)
    torch.manual_seed(0)
    estimate = jacobian_norms(memory, x, probes=400)
    torch.testing.assert_close(estimate, jacobian_norms(memory, x), rtol=0.2, atol=1e-3)


def test_loss_gradient_is_the_chain_rule(name: str) -> None:
    """∇_{h_t} L = (ds_T/dh_t)ᵀ ∇_{s_T} L for a loss of the last output (equation 8)."""
    memory = make_memory(name, F, H).double()
    x, weight = sequence(4), torch.randn(H, dtype=torch.float64)
    norms = gradient_norms(memory, x, lambda y: (y[-1] @ weight).sum())
    expected = torch.einsum("i,tbij->tbj", weight, jacobians(memory, x)).norm(dim=2)
    torch.testing.assert_close(norms, expected)


def test_no_gradient_crosses_an_episode_start(name: str) -> None:
    memory = make_memory(name, F, H).double()
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[4, 0] = True
    norms = gradient_norms(memory, sequence(5), lambda y: y[-1].square().sum(), starts)
    assert not norms[:4, 0].any()
    assert norms[-1].all()
    if name != "none":
        assert norms[:, 1].all()


def test_memory_without_memory_passes_nothing_on() -> None:
    norms = jacobian_norms(make_memory("none", F, H).double(), sequence())
    assert not norms[:-1].any()
    torch.testing.assert_close(norms[-1], torch.full((B,), H**0.5, dtype=torch.float64))


class Trace(Memory[Any]):
    """A memory of someone else's, whose output may be another tensor than what it carries on."""

    def __init__(self, output: Callable[[Tensor], Tensor]) -> None:
        super().__init__(F, H)
        self.layer = torch.nn.Linear(F, H)
        self.output = output

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        return (self.zeros(batch, H),)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        trace = 0.9 * state[0] + self.layer(x).tanh()
        return self.output(trace), (trace,)


def test_a_memory_that_hides_its_hidden_state_is_refused() -> None:
    shown = Trace(lambda trace: trace).double()
    norms = jacobian_norms(shown, sequence())
    expected = [0.9 ** (T - 1 - t) * H**0.5 for t in range(T)]
    torch.testing.assert_close(norms[:, 0], torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(AnalysisInputError, match="does not show where"):
        jacobian_norms(Trace(torch.clone).double(), sequence())


def test_works_without_gradients_around_it() -> None:
    memory = make_memory("rel", F, H).requires_grad_(False)
    with torch.no_grad():
        norms = gradient_norms(memory, sequence().float(), lambda y: y.sum())
    assert norms.all()


def test_wrong_requests_are_refused() -> None:
    memory = make_memory("lstm", F, H).double()
    with pytest.raises(AnalysisInputError, match="must be a scalar"):
        gradient_norms(memory, sequence(), lambda y: y.sum(dim=0))
    with pytest.raises(AnalysisInputError, match="is a float"):
        gradient_norms(memory, sequence(), lambda y: 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(AnalysisInputError, match="is a constant"):
        gradient_norms(memory, sequence(), lambda y: y.detach().sum())
    head = torch.nn.Linear(H, 1).double()
    with pytest.raises(AnalysisInputError, match="is a constant"):
        gradient_norms(memory, sequence(), lambda y: head(y.detach()).sum())
    for step in (T, -T - 1):
        with pytest.raises(AnalysisInputError, match=f"the sequence has {T} steps"):
            jacobians(memory, sequence(), step=step)
        with pytest.raises(AnalysisInputError, match=f"the sequence has {T} steps"):
            jacobian_norms(memory, sequence(), step=step)
    with pytest.raises(AnalysisInputError, match="at least 1"):
        jacobian_norms(memory, sequence(), probes=0)
    misfits: list[Any] = [sequence()[:, 0], sequence()[0, 0], sequence().tolist()]
    for x in misfits:
        with pytest.raises(MemoryInputError):
            jacobians(memory, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_0_of_0_alone(dtype: torch.dtype) -> None:
    tiny, huge = (torch.finfo(dtype).tiny, torch.finfo(dtype).max / 10)
    vectors = torch.tensor(
        [[0.0, 0.0], [3 * tiny, 4 * tiny], [3.0, -4.0], [3 * huge, 4 * huge]], dtype=dtype
    )
    expected = torch.tensor([0.0, 5 * tiny, 5.0, 5 * huge], dtype=dtype)
    torch.testing.assert_close(vector_norms(vectors), expected, rtol=1e-6, atol=0)
    assert vector_norms(torch.tensor([[torch.inf, 1.0]])) == torch.inf
    assert vector_norms(torch.tensor([[torch.nan, 1.0]])).isnan()
