"""Propositions 1 and 2 and Lemmas 5-8, by formula, against automatic differentiation."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relagent.analysis.decomposition import (
    AttentiveRNN,
    alignment_gradient,
    alpha_matrix,
    decompose,
    recurrence_gradient,
)
from relagent.analysis.gradients import AnalysisInputError, jacobians, unroll_with_handles
from relagent.memories import GORU, GRU, LSTM, MemLSTM, MemRNN, NoMemory, RelRNN


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """‖ours - reference‖ / ‖reference‖; 0 where both vanish (a dead modReLU passes nothing on)."""
    return float((ours - reference).norm() / reference.norm().clamp_min(1e-300))


@st.composite
def networks(draw: st.DrawFn, steps: int = 12) -> tuple[AttentiveRNN, Tensor]:
    """A random self-attentive RNN, with weights larger than a fresh one's, and a sequence."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    n, T = draw(st.integers(1, 8)), draw(st.integers(2, steps))
    options: Any = {
        "combine": draw(st.sampled_from(["sum", "mean"])),
        "nonlinearity": draw(st.sampled_from(["tanh", "modrelu"])),
    }
    memory: AttentiveRNN = (
        MemRNN(3, n, **options)
        if draw(st.booleans())
        else RelRNN(3, n, nu=draw(st.integers(1, 4)), rho=draw(st.integers(0, 4)), **options)
    )
    memory.double()
    scale = draw(st.floats(0.3, 1.5))
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * scale / max(1, parameter.shape[-1]) ** 0.5
            )
    return memory, torch.randn(T, 3, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_proposition_1_equals_autograd(network: tuple[AttentiveRNN, Tensor]) -> None:
    """Σ_s ξ̄(s) is the total derivative, for every t: relative error at most 1e-9."""
    memory, x = network
    parts, T = decompose(memory, x), len(x)
    reference = jacobians(memory, x[:, None])[:, 0]
    for t in range(1, T + 1):
        assert relative_error(parts.jacobian(t, T - t), reference[t - 1]) <= 1e-9


@settings(max_examples=8, deadline=None)
@given(networks(steps=6))
def test_xi_bar_is_the_sum_over_index_sets(network: tuple[AttentiveRNN, Tensor]) -> None:
    """Equation 42, literally."""
    memory, x = network
    parts, k = decompose(memory, x), len(x) - 1
    for s in range(1, k + 1):
        total = torch.zeros_like(parts.E(1, 0))
        for indices in combinations(range(k), s):
            product = parts.E(1, indices[0])
            for lower, upper in zip(indices, (*indices[1:], k), strict=True):
                product = parts.F(1, upper, lower) @ product
            total += product
        torch.testing.assert_close(parts.xi_bar(1, k)[s], total, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(networks(steps=8), st.integers(0, 2**31))
def test_lemmas_7_and_8_equal_autograd(network: tuple[AttentiveRNN, Tensor], seed: int) -> None:
    memory, x = network
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(x), memory.hidden_size, dtype=torch.float64, generator=generator)

    def loss(y: Tensor) -> Tensor:
        return (weight * y.sin()).sum()

    value = loss(unroll_with_handles(memory, x[:, None]).outputs[:, 0])
    parameters = dict(memory.named_parameters())
    gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    references = dict(zip(parameters, gradients, strict=True))
    for owner, ours in [
        ("attention", alignment_gradient(memory, x, loss)),
        ("cell", recurrence_gradient(memory, x, loss)),
    ]:
        for name, gradient in ours.items():
            torch.testing.assert_close(
                gradient, references[f"{owner}.{name}"], rtol=1e-9, atol=1e-11
            )


def test_alpha_matrix_is_causal_and_sparse() -> None:
    memory = RelRNN(3, 4, nu=2, rho=1).double()
    _, _, look = memory.trace(torch.randn(9, 2, 3).double(), memory.initial_state(2))
    for row in range(2):
        alpha = alpha_matrix(look, row)
        torch.testing.assert_close(alpha.sum(dim=1), torch.ones(9, dtype=torch.float64))
        assert not alpha.triu(1).any()
        assert (alpha > 0).sum(dim=1).tolist() == [1, 2] + [3] * 7
        assert (alpha.diagonal(-1) > 0).all(), "the short-term buffer holds the last two states"


def test_wrong_requests_are_refused() -> None:
    x = torch.randn(4, 3).double()
    for memory in (MemLSTM(3, 2), LSTM(3, 2), GRU(3, 2), GORU(3, 2), NoMemory(3, 2)):
        with pytest.raises(AnalysisInputError, match="MemRNN or a RelRNN"):
            decompose(memory, x)  # type: ignore[arg-type]  # that is the test
    parts = decompose(MemRNN(3, 2).double(), x)
    for t, k in [(0, 1), (1, 4), (2, -1)]:
        with pytest.raises(AnalysisInputError, match="outside the sequence"):
            parts.E(t, k)
    with pytest.raises(AnalysisInputError, match="not defined"):
        parts.F(1, 2, 2)
    for gradient in (alignment_gradient, recurrence_gradient):
        with pytest.raises(AnalysisInputError, match="must be a scalar"):
            gradient(MemRNN(3, 2).double(), x, lambda y: y)
