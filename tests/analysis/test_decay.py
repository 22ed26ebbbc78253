"""Section A.3: Theorem 1 as it is and as printed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relagent.analysis import decay, uniform
from relagent.analysis.gradients import AnalysisInputError, jacobians
from relagent.memories import MemRNN
from relagent.memories.attention import Combine

TIMES = [int(T) for T in np.geomspace(1e4, 1e5, 12)]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**31))
def test_jacobian_is_the_polynomial_of_chi(t: int, k: int, seed: int) -> None:
    V = np.random.default_rng(seed).standard_normal((3, 3))
    polynomial = sum(
        float(uniform.chi(t, k, s)) * np.linalg.matrix_power(V, s) for s in range(k + 1)
    )
    (norm,) = decay.uniform_jacobian_norms(V, t, [t + k])
    assert norm == pytest.approx(float(np.linalg.norm(polynomial)), rel=1e-10)


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_a_real_network_is_this_case(combine: Combine) -> None:
    """A MemRNN with v_a = 0 and φ = identity, differentiated automatically."""
    torch.manual_seed(0)
    memory, T = MemRNN(3, 4, combine=combine).double(), 15
    memory.cell.nonlinearity = nn.Identity()
    nn.init.zeros_(memory.attention.energy_weight)
    f = 1.0 if combine == "sum" else 0.5
    V = f * memory.cell.recurrent_weight.detach().numpy()
    total_derivatives = jacobians(memory, torch.randn(T, 1, 3).double())[:, 0]
    for t in range(1, T + 1):
        expected = f * decay.uniform_jacobian_norms(V, t, [T])
        assert float(total_derivatives[t - 1].norm()) == pytest.approx(expected[0], rel=1e-10)


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [0.0],
        [0.3],
        [0.5],
        [0.7],
        [-0.5],
        [-0.9],
        [0.6 + 0.6j],
        [0.9j],
        [0.3, -0.8],
        [-0.5 + 0.5j, -0.2],
    ],
)
def test_theorem_1_corrected(eigenvalues: list[complex]) -> None:
    """The measured exponent, for T from 1e4 to 1e5, is max Re(λ/(1-λ)) - 1 to within 0.05."""
    V = decay.normal_matrix(eigenvalues, np.random.default_rng(0))
    norms = decay.uniform_jacobian_norms(V, 2, TIMES)
    measured = decay.fit_exponent(TIMES, norms)
    assert measured == pytest.approx(decay.exponent(eigenvalues), abs=0.05)


@pytest.mark.parametrize("eigenvalue", [0.3, 0.7, -0.5, -0.9, 0.6 + 0.6j, 0.2 + 0.9j])
@pytest.mark.parametrize("t", [1, 4])
def test_leading_term_of_proposition_4_corrected(eigenvalue: complex, t: int) -> None:
    """Not the exponent alone: the constant too."""
    pair = 1 if np.imag(eigenvalue) == 0 else np.sqrt(2)
    V = decay.normal_matrix([eigenvalue], np.random.default_rng(0))
    (norm,) = decay.uniform_jacobian_norms(V, t, [30_000])
    assert norm == pytest.approx(pair * abs(decay.leading_term(eigenvalue, t, 30_000)), rel=1e-3)


def test_leading_term_near_1() -> None:
    """It takes T ≫ μ³ there; powers of 1 - λ and the product over the steps are beyond floats."""
    (norm,) = decay.uniform_jacobian_norms([[0.9]], 1, [100_000])
    assert norm == pytest.approx(decay.leading_term(0.9, 1, 100_000).real, rel=0.01)
    with np.errstate(all="raise"):
        assert 1e60 < decay.leading_term(0.995, 1, 30_000).real < 1e62


def test_theorem_1_fails_as_printed() -> None:
    """V = [-1/2] is normal and of modulus below 1, and T · |ds_T/dh_1| tends to 0, as T^(-1/3)."""
    times = [10**2, 10**3, 10**4, 10**5]
    scaled = np.array(times) * decay.uniform_jacobian_norms([[-0.5]], 1, times)
    np.testing.assert_allclose(scaled[1:] / scaled[:-1], 10 ** (-1 / 3), rtol=0.01)
    # A positive real part does not save it: 0.6 ± 0.6i decays as T^-1.23, printed T^-0.4.
    assert decay.printed_exponent([0.6 + 0.6j]) == pytest.approx(-0.4)
    V = decay.normal_matrix([0.6 + 0.6j], np.random.default_rng(0))
    measured = decay.fit_exponent(TIMES, decay.uniform_jacobian_norms(V, 1, TIMES))
    assert measured < -1.2


@given(st.floats(0, 0.999), st.floats(0, 2 * np.pi))
def test_corrected_exponent_is_above_minus_three_halves(radius: float, angle: float) -> None:
    """So the gradient decays polynomially whatever V; Ω(1/T) holds in the disc |λ - 1/2| ≤ 1/2."""
    eigenvalue = radius * np.exp(1j * angle)
    value = decay.exponent([eigenvalue])
    assert value > -1.5
    distance = abs(eigenvalue - 0.5)
    if abs(distance - 0.5) > 1e-9:
        assert (value >= -1) == (distance < 0.5)
    if abs(abs(eigenvalue - 0.75) - 0.25) > 1e-9:
        assert (value > 0) == (abs(eigenvalue - 0.75) < 0.25)
    assert -4 / 3 < decay.exponent([eigenvalue / 2]) < 0, "f = (h + c)/2"


def test_leading_coefficient_does_not_vanish_on_a_grid() -> None:
    """|B|, rid of its factor (1-λ)^(μ-1), over the disc |λ| ≤ 0.9."""
    smallest = min(
        abs(decay.leading_term(z, t, t + 1) * abs((1 - z) ** (1 - z / (1 - z))))
        for t in (1, 2, 10)
        for radius in np.linspace(0, 0.9, 10)
        for z in radius * np.exp(1j * np.linspace(0, np.pi, 13))
    )
    assert smallest > 1e-3


def test_wrong_requests_are_refused() -> None:
    for call in (
        lambda: decay.exponent([1.0]),
        lambda: decay.exponent([float("nan")]),
        lambda: decay.exponent([]),
        lambda: decay.leading_term(0.5, 0, 3),
        lambda: decay.leading_term(0.5, 3, 2),
        lambda: decay.uniform_jacobian_norms([[0.5]], 3, [2]),
        lambda: decay.uniform_jacobian_norms([[0.5]], 3, []),
        lambda: decay.uniform_jacobian_norms([[0.5]], 1, [2.5]),  # type: ignore[list-item]  # so
        lambda: decay.uniform_jacobian_norms([[0.5, 0.1]], 1, [2]),
        lambda: decay.uniform_jacobian_norms(0.5, 1, [2]),
    ):
        with pytest.raises(AnalysisInputError):
            call()
