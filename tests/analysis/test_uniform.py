"""Section A.3: exact combinatorics, the lemmas' bounds, and Theorem 1 as it is and as printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from math import factorial, log, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relagent.analysis import uniform
from relagent.analysis.gradients import AnalysisInputError, jacobians
from relagent.memories import MemRNN

CASES = [(t, k) for t in (1, 2, 5) for k in (1, 2, 3, 5, 8, 12)]
TIMES = [int(T) for T in np.geomspace(1e4, 1e5, 12)]


def indices(k: int, s: int, start: int = 0) -> Iterator[tuple[int, ...]]:
    return combinations(range(start, k), s)


def total(terms: Iterator[Fraction]) -> Fraction:
    return sum(terms, start=Fraction(0))


def weight(t: int, lower: int, upper: int) -> Fraction:
    """The factor (1/(t + upper) + 1[upper - lower = 1]) of equations 122 and 127."""
    return Fraction(1, t + upper) + (upper - lower == 1)


# ------------------------------------------------------------------------------------ ω, θ and χ


@pytest.mark.parametrize(("t", "k"), CASES)
def test_omega_equals_brute_force_lemma_9_and_proposition_3(t: int, k: int) -> None:
    for start in (0, 1, 3):
        for s in range(7):
            brute = total(
                prod((Fraction(1, t + i) for i in i_s), start=Fraction(1))
                for i_s in indices(k, s, start)
            )
            assert uniform.omega(t, k, s, start) == brute
            assert uniform.omega_by_lemma_9(t, k, s, start) == brute
            assert uniform.omega_by_proposition_3(t, k, s, start) == brute


@pytest.mark.parametrize(("t", "k"), CASES)
def test_theta_and_chi_equal_brute_force(t: int, k: int) -> None:
    for s in range(1, 7):
        theta = total(
            prod(
                (weight(t, a, b) for a, b in zip((-1, *i_s), i_s, strict=False)), start=Fraction(1)
            )
            for i_s in indices(k, s)
        )
        assert uniform.theta(t, k, s) == theta
        # -1 before the first index: its indicator 1[i_1 = 0] is 1[i_1 - (-1) = 1].
        chi = total(
            prod(
                (weight(t, a, b) for a, b in zip((-1, *i_s), (*i_s, k), strict=True)),
                start=Fraction(1),
            )
            for i_s in indices(k, s)
        )
        assert uniform.chi(t, k, s) == chi
    assert uniform.chi(t, k, 0) == Fraction(1, t + k)


def test_delta_is_what_the_appendix_gives_and_corrects_equation_149() -> None:
    S = uniform.power_sums(2, 9, 4)
    delta = uniform.deltas(S)
    assert delta[1:4] == [0, -S[2] / 2, S[3] / 3]
    assert delta[4] == -(2 * S[4] + S[2] ** 2) / 8
    printed = -(S[4] + 2 * S[2] ** 2) / 8  # equation 149
    rest = -S[2] / 2 * uniform.omega(2, 9, 2) + S[3] / 3 * uniform.omega(2, 9, 1) + S[1] ** 4 / 24
    assert rest + delta[4] == uniform.omega(2, 9, 4)
    assert rest + printed != uniform.omega(2, 9, 4)


def test_psi_sums_over_compositions_not_over_partitions() -> None:
    """Equation 165 asks for j_1 ≥ ... ≥ j_k; with it Proposition 3 fails from s = 5 on."""
    t, k = 2, 9
    S = uniform.power_sums(t, k, 6)
    delta = uniform.deltas(S)

    def tuples(l: int, allowed: Callable[[int, int], bool], last: int) -> Iterator[tuple[int, ...]]:
        if l == 0:
            yield ()
        for j in range(2, l + 1):
            if allowed(last, j):
                for rest in tuples(l - j, allowed, j):
                    yield (j, *rest)

    def psi(l: int, allowed: Callable[[int, int], bool]) -> Fraction:
        products = (prod((delta[j] for j in js), start=Fraction(1)) for js in tuples(l, allowed, l))
        return total(products)

    compositions = [psi(l, lambda _, __: True) for l in range(7)]
    partitions = [psi(l, lambda last, j: j <= last) for l in range(7)]
    assert compositions == uniform.psis(S)
    assert partitions[:5] == compositions[:5]
    assert partitions[5] - compositions[5] == -delta[2] * delta[3] != 0

    def omega(s: int, psi: list[Fraction]) -> Fraction:
        return total(psi[s - r] * S[1] ** r / factorial(r) for r in range(s + 1))

    assert omega(5, compositions) == uniform.omega(t, k, 5) != omega(5, partitions)


# -------------------------------------------------------------------------- the lemmas' bounds


@pytest.mark.parametrize(("t", "k"), CASES)
def test_lemmas_10_and_11_hold_for_s_up_to_k(t: int, k: int) -> None:
    for s in range(min(k, 6) + 1):
        lower, upper = uniform.theta_bounds(t, k, s)
        assert lower <= uniform.theta(t, k, s) <= upper
        lower, upper = uniform.chi_bounds(t, k, s)
        assert lower <= uniform.chi(t, k, s) <= upper


def test_lemma_11_needs_s_up_to_k() -> None:
    """Printed for all s ≥ 0 and k ≥ 1; for s > k there is no path, and t + k - s may be 0."""
    assert uniform.chi(1, 2, 3) == 0
    with pytest.raises(AnalysisInputError, match="s <= k"):
        uniform.chi_bounds(1, 2, 3)


def test_the_bounds_of_lemma_10_do_not_meet() -> None:
    """Remark 15 says that their difference vanishes as k grows; for s = 2 it tends to 2/t."""
    t, k = 2, 150
    lower, upper = uniform.theta_bounds(t, k, 2)
    assert upper - lower == 2 * (Fraction(1, t) - Fraction(1, t + k - 1))
    gaps = []
    for k in (20, 60, 180):
        lower, upper = uniform.theta_bounds(t, k, 3)
        gaps.append(upper - lower)
    assert gaps[0] < gaps[1] < gaps[2], "and for s = 3 it grows"


def test_lemma_12_holds_only_for_s_2() -> None:
    """Printed: the remainder is Θ(1) for every s. It is 0, 1/(t+k-1), Θ(1), Θ(ln k), ..."""
    t = 2
    for k in (10, 40, 160):
        assert uniform.lemma_12_remainder(t, k, 0) == 0
        assert uniform.lemma_12_remainder(t, k, 1) == Fraction(1, t + k - 1)
    r2, r3 = ([float(uniform.lemma_12_remainder(t, k, s)) for k in (20, 80, 320)] for s in (2, 3))
    assert abs(r2[2] - 2 / t) < 0.03
    # Per factor 4 in k, s = 3 gains about (3/t) ln 4 = 2.1; Θ(1) would gain nothing in the end.
    assert r3[2] - r3[1] > 0.9 * (r3[1] - r3[0]) > log(4)


# ------------------------------------------------------------------------------------ Theorem 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**31))
def test_jacobian_is_the_polynomial_of_chi(t: int, k: int, seed: int) -> None:
    V = np.random.default_rng(seed).standard_normal((3, 3))
    polynomial = sum(
        float(uniform.chi(t, k, s)) * np.linalg.matrix_power(V, s) for s in range(k + 1)
    )
    (norm,) = uniform.uniform_jacobian_norms(V, t, [t + k])
    assert norm == pytest.approx(float(np.linalg.norm(polynomial)), rel=1e-10)


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_a_real_network_is_this_case(combine: str) -> None:
    """A MemRNN with v_a = 0 and φ = identity, differentiated automatically."""
    torch.manual_seed(0)
    memory, T = MemRNN(3, 4, combine=combine).double(), 15
    memory.cell.nonlinearity = nn.Identity()
    nn.init.zeros_(memory.attention.energy_weight)
    f = 1.0 if combine == "sum" else 0.5
    V = f * memory.cell.recurrent_weight.detach().numpy()
    total_derivatives = jacobians(memory, torch.randn(T, 1, 3).double())[:, 0]
    for t in range(1, T + 1):
        expected = f * uniform.uniform_jacobian_norms(V, t, [T])
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
    V = uniform.normal_matrix(eigenvalues, np.random.default_rng(0))
    norms = uniform.uniform_jacobian_norms(V, 2, TIMES)
    measured = uniform.fit_exponent(TIMES, norms)
    assert measured == pytest.approx(uniform.exponent(eigenvalues), abs=0.05)


@pytest.mark.parametrize("eigenvalue", [0.3, 0.7, -0.5, -0.9, 0.6 + 0.6j, 0.2 + 0.9j])
@pytest.mark.parametrize("t", [1, 4])
def test_leading_term_of_proposition_4_corrected(eigenvalue: complex, t: int) -> None:
    """Not the exponent alone: the constant too."""
    pair = 1 if np.imag(eigenvalue) == 0 else np.sqrt(2)
    V = uniform.normal_matrix([eigenvalue], np.random.default_rng(0))
    (norm,) = uniform.uniform_jacobian_norms(V, t, [30_000])
    assert norm == pytest.approx(pair * abs(uniform.leading_term(eigenvalue, t, 30_000)), rel=1e-3)


def test_theorem_1_fails_as_printed() -> None:
    """V = [-1/2] is normal and of modulus below 1, and T · |ds_T/dh_1| tends to 0, as T^(-1/3)."""
    times = [10**2, 10**3, 10**4, 10**5]
    scaled = np.array(times) * uniform.uniform_jacobian_norms([[-0.5]], 1, times)
    np.testing.assert_allclose(scaled[1:] / scaled[:-1], 10 ** (-1 / 3), rtol=0.01)
    # A positive real part does not save it: 0.6 ± 0.6i decays as T^-1.23, printed T^-0.4.
    assert uniform.printed_exponent([0.6 + 0.6j]) == pytest.approx(-0.4)
    V = uniform.normal_matrix([0.6 + 0.6j], np.random.default_rng(0))
    measured = uniform.fit_exponent(TIMES, uniform.uniform_jacobian_norms(V, 1, TIMES))
    assert measured < -1.2


@given(st.floats(0, 0.999), st.floats(0, 2 * np.pi))
def test_corrected_exponent_is_above_minus_three_halves(radius: float, angle: float) -> None:
    """So the gradient decays polynomially whatever V; Ω(1/T) holds in the disc |λ - 1/2| ≤ 1/2."""
    eigenvalue = radius * np.exp(1j * angle)
    value = uniform.exponent([eigenvalue])
    assert value > -1.5
    distance = abs(eigenvalue - 0.5)
    if abs(distance - 0.5) > 1e-9:
        assert (value >= -1) == (distance < 0.5)
    if abs(abs(eigenvalue - 0.75) - 0.25) > 1e-9:
        assert (value > 0) == (abs(eigenvalue - 0.75) < 0.25)
    assert -4 / 3 < uniform.exponent([eigenvalue / 2]) < 0, "f = (h + c)/2"


def test_leading_coefficient_does_not_vanish_on_a_grid() -> None:
    """|B|, rid of its factor (1-λ)^(μ-1), over the disc |λ| ≤ 0.9."""
    smallest = min(
        abs(uniform.leading_term(z, t, t + 1) * abs((1 - z) ** (1 - z / (1 - z))))
        for t in (1, 2, 10)
        for radius in np.linspace(0, 0.9, 10)
        for z in radius * np.exp(1j * np.linspace(0, np.pi, 13))
    )
    assert smallest > 1e-3


def test_wrong_requests_are_refused() -> None:
    for call in (
        lambda: uniform.omega(0, 3, 1),
        lambda: uniform.chi(1, 2, -1),
        lambda: uniform.exponent([1.0]),
        lambda: uniform.uniform_jacobian_norms([[0.5]], 3, [2]),
        lambda: uniform.uniform_jacobian_norms([[0.5]], 3, []),
    ):
        with pytest.raises(AnalysisInputError):
            call()
