"""Section A.3: exact combinatorics and the lemmas' bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from math import factorial, log, prod

import pytest

from relagent.analysis import uniform
from relagent.analysis.gradients import AnalysisInputError

CASES = [(t, k) for t in (1, 2, 5) for k in (1, 2, 3, 5, 8, 12)]


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


def test_wrong_requests_are_refused() -> None:
    for call in (
        lambda: uniform.omega(0, 3, 1),
        lambda: uniform.omega(2, 5, 1, -1),
        lambda: uniform.chi(1, 2, -1),
        lambda: uniform.theta_bounds(2, 5, -1),
        lambda: uniform.chi_bounds(2, -3, -4),
        lambda: uniform.power_sums(0, 5, 2),
        lambda: uniform.omega_by_lemma_9(0, 5, 2),
        lambda: uniform.omega_by_lemma_9(2, 5, -1),
        lambda: uniform.omega_by_proposition_3(2, 5, -1),
    ):
        with pytest.raises(AnalysisInputError):
            call()
