"""Uniform attention: the gradient where every state is attended to alike (section A.3), exactly.

With J_t = V (no nonlinearity), α_{i,t} = 1/t and f = h + c, the E and F matrices become

    E_k = (1/(t+k) + 1[k=0]) I        F_{k+1,j} = (1/(t+k+1) + 1[k=j]) V        (119, 120)

so that ds_{t+k}/dh_t = Σ_s χ_{0:k}(s) V^s: a polynomial in V with rational coefficients, computed
here exactly, in :class:`fractions.Fraction`. What it tends to is in :mod:`relagent.analysis.decay`.
For f = (h + c)/2 replace V by V/2 and halve the result.

A MemRNN whose alignment vector v_a is zero and whose φ is the identity is exactly this case.
Equation numbers are those of the appendix; ``docs/appendix_misprints.md`` has the corrections and
the proofs of what is stated differently here.

Everywhere t ≥ 1 is the time of the hidden state, k ≥ 0 the steps after it and s ≥ 0 the power of V;
anything else raises :class:`~relagent.analysis.gradients.AnalysisInputError`, as do bounds on θ and
χ for s > k.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import comb, factorial

from relagent.analysis.gradients import AnalysisInputError

# ---------------------------------------------------------------- ω: products of distinct weights


@cache
def omega(t: int, k: int, s: int, start: int = 0) -> Fraction:
    """Return ω_{l:k}^(t)(s) (equation 126): Σ over l ≤ i_1 < ... < i_s < k of Π_i 1/(t + i).

    By its last index: ω_{l:k}(s) = Σ_{l+s-1 ≤ j < k} ω_{l:j}(s - 1) / (t + j), and ω(0) = 1.

    Args:
        t: time of the hidden state, at least 1.
        k: steps after it.
        s: number of factors, at least 0.
        start: l, at least 0.
    """
    _check(t, k, s, start)
    if s == 0:
        return Fraction(1)
    return sum(
        (omega(t, j, s - 1, start) / (t + j) for j in range(start + s - 1, k)), start=Fraction(0)
    )


def power_sums(t: int, k: int, count: int, start: int = 0) -> list[Fraction]:
    """Return [S_0, S_1, ..., S_count] with S_l = Σ_{l ≤ i < k} (t + i)^-l (equation 138)."""
    _check(t, k, count, start)
    return [
        sum((Fraction(1, (t + i) ** power) for i in range(start, k)), start=Fraction(0))
        for power in range(count + 1)
    ]


def deltas(powers: Sequence[Fraction]) -> list[Fraction]:
    """Return δ_{l,0} for l = 0, 1, ... (equation 151), from the power sums.

    The appendix gives δ_{l,0} for l ≤ 4. For all l it is minus the coefficient of z^l in
    exp(Σ_{m≥2} (-1)^m S_m z^m / m), hence this recursion. δ_{1,0} = 0.
    """
    c = [Fraction(1)]
    for l in range(1, len(powers)):
        terms = ((-1) ** m * powers[m] * c[l - m] for m in range(2, l + 1))
        c.append(sum(terms, start=Fraction(0)) / l)
    return [Fraction(0)] + [-value for value in c[1:]]


def psis(powers: Sequence[Fraction]) -> list[Fraction]:
    """Return ψ_l for l = 0, 1, ... by ψ_l = Σ_{j<l} δ_{l-j,0} ψ_j (equation 173), ψ_0 = 1."""
    delta, psi = deltas(powers), [Fraction(1)]
    for l in range(1, len(powers)):
        psi.append(sum((delta[l - j] * psi[j] for j in range(l)), start=Fraction(0)))
    return psi


def omega_by_lemma_9(t: int, k: int, s: int, start: int = 0) -> Fraction:
    """Return ω(s) by the recursion ω(s) = S_1^s/s! + Σ_{l<s} δ_{s-l,0} ω(l) (equation 152)."""
    _check(t, k, s, start)
    powers = power_sums(t, k, s, start)
    delta, omegas = deltas(powers), [Fraction(1)]
    for order in range(1, s + 1):
        carried = (delta[order - l] * omegas[l] for l in range(order))
        omegas.append(powers[1] ** order / factorial(order) + sum(carried, start=Fraction(0)))
    return omegas[s]


def omega_by_proposition_3(t: int, k: int, s: int, start: int = 0) -> Fraction:
    """Return ω(s) in closed form: Σ_{r≤s} ψ_{s-r} S_1^r / r! (equation 163)."""
    _check(t, k, s, start)
    powers = power_sums(t, k, max(s, 1), start)
    psi = psis(powers)
    terms = (psi[s - r] * powers[1] ** r / factorial(r) for r in range(s + 1))
    return sum(terms, start=Fraction(0))


# ------------------------------------------------------------------ θ and χ: with the direct paths


@cache
def theta(t: int, k: int, s: int) -> Fraction:
    """Return θ_{0:k}^(t)(s) for s ≤ k (equation 127), by the recursion of equation 188."""
    _check(t, k, s)
    if s == 0:
        return Fraction(1)
    if s > k:
        return Fraction(0)
    attended = (theta(t, j, s - 1) / (t + j) for j in range(s - 1, k))
    return theta(t, k - 1, s - 1) + sum(attended, start=Fraction(0))


def chi(t: int, k: int, s: int) -> Fraction:
    """Return χ_{0:k}^(t)(s), the coefficient of V^s in ds_{t+k}/dh_t (equations 122 and 220)."""
    _check(t, k, s)
    if s > k:
        return Fraction(0)
    terms = (theta(t, k - i, s - i) / (t + k - i) for i in range(s + 1))
    return sum(terms, start=Fraction(int(k == s)))


def theta_bounds(t: int, k: int, s: int) -> tuple[Fraction, Fraction]:
    """Return the lower and the upper bound of Lemma 10 on θ_{0:k}(s), for 0 ≤ s ≤ k."""
    _check_order(t, k, s)
    lower = sum(comb(s, r) * omega(t, k, r, s - r) for r in range(s + 1))
    upper = sum(comb(s, r) * omega(t, k - s + r, r) for r in range(s + 1))
    return Fraction(lower), Fraction(upper)


def chi_bounds(t: int, k: int, s: int) -> tuple[Fraction, Fraction]:
    """Return the lower and the upper bound of Lemma 11 on χ_{0:k}(s), for 0 ≤ s ≤ k."""
    _check_order(t, k, s)
    direct = int(k == s)
    lower = sum(comb(s + 1, r + 1) * omega(t, k, r, s - r) for r in range(s + 1))
    upper = sum(comb(s + 1, r + 1) * omega(t, k - s + r, r) for r in range(s + 1))
    return direct + Fraction(lower) / (t + k), direct + Fraction(upper) / (t + k - s)


def lemma_12_remainder(t: int, k: int, s: int) -> Fraction:
    """Return (t + k) · (χ_{0:k}(s) - the lower bound of Lemma 11), what Lemma 12 leaves over.

    Printed: Θ(1), for every s. It is exactly 0 for s = 0, O(1/k) for s = 1, and grows as
    (ln k)^(s-2) for s ≥ 2.
    """
    return (t + k) * (chi(t, k, s) - chi_bounds(t, k, s)[0])


def _check(t: int, k: int, s: int, start: int = 0) -> None:
    if t < 1 or k < 0 or s < 0 or start < 0:
        raise AnalysisInputError(
            f"t={t}, k={k}, s={s}, l={start}: times start at t = 1, the others must be at least 0"
        )


def _check_order(t: int, k: int, s: int) -> None:
    _check(t, k, s)
    if s > k:
        raise AnalysisInputError(f"s={s}, k={k}: the lemma is about s <= k; beyond it, χ is 0")
