"""Uniform attention: how fast the gradient decays with the distance T (Theorem 1, section A.3).

The network is that of :mod:`relagent.analysis.uniform`: J_t = V, α_{i,t} = 1/t, f = h + c. Equation
numbers are those of the appendix; ``docs/appendix_misprints.md`` has the corrections and the proofs
of what is stated differently here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relagent.analysis.gradients import AnalysisInputError


def uniform_jacobian_norms(V: ArrayLike, t: int, times: Sequence[int]) -> NDArray[np.float64]:
    """Return ‖ds_T/dh_t‖ (Frobenius) for each T of ``times``, by the recursion, in O(max T · n³).

    C_T = (I + V Σ_{t≤j<T} C_j) / T + V C_{T-1},   C_t = (1 + 1/t) I

    Args:
        V: [n, n], any matrix.
        t: time of the hidden state, at least 1.
        times: increasing, from t on.

    Raises:
        AnalysisInputError: V is not square, or the times are not as they must be.
    """
    V = np.asarray(V, dtype=np.float64)
    if V.ndim != 2 or V.shape[0] != V.shape[1]:
        raise AnalysisInputError(f"V has shape {list(V.shape)}, it must be a square matrix")
    if not all(float(T).is_integer() for T in (t, *times)):
        raise AnalysisInputError(f"t={t}, times={list(times)}: times must be whole numbers")
    times = [int(T) for T in times]
    if t < 1 or len(times) == 0 or times[0] < t or any(np.diff(times) <= 0):
        raise AnalysisInputError(f"times must increase from t={t} on, which is at least 1")
    identity = np.eye(len(V))
    C = (1 + 1 / t) * identity
    numerator = identity + V @ C  # I + V Σ C_j
    norms = []
    for before, T in pairwise([t, *times]):
        for now in range(before + 1, T + 1):
            C = numerator / now + V @ C
            numerator = numerator + V @ C
        norms.append(float(np.linalg.norm(C)))
    return np.array(norms)


def exponent(eigenvalues: ArrayLike) -> float:
    """Return η' such that ‖ds_T/dh_t‖ = Θ(T^η') for a normal V: max_i Re(λ_i / (1 - λ_i)) - 1.

    Theorem 1 corrected. η' > -3/2 for every V with |λ_i| < 1, and η' ≥ -1, the printed Ω(1/T),
    exactly if some eigenvalue lies in the disc |λ - 1/2| ≤ 1/2. (A leading coefficient could vanish
    for isolated λ; see :func:`leading_term`.)

    Raises:
        AnalysisInputError: an eigenvalue of modulus 1 or more.
    """
    eigenvalues = _inside_unit_disc(eigenvalues)
    return float(np.max((eigenvalues / (1 - eigenvalues)).real) - 1)


def printed_exponent(eigenvalues: ArrayLike) -> float:
    """Return -η of equations 265-267 as printed: -min_i min(1, 1 - Re λ_i).

    Raises:
        AnalysisInputError: an eigenvalue of modulus 1 or more.
    """
    return float(-np.min(np.minimum(1, 1 - _inside_unit_disc(eigenvalues).real)))


def leading_term(eigenvalue: complex, t: int, T: int) -> complex:
    """Return what the eigenvalue p(λ) of ds_T/dh_t is asymptotically equal to (Proposition 4).

    With μ = λ/(1-λ) and Gauss's hypergeometric series ₂F₁,

        p_T(λ) ~ B/T · Π_{m=t..T-1} (1 + μ/m) ∝ T^(μ-1),
        B = (1-λ)^(μ-1) · [(t+1) ₂F₁(μ, t; t+μ; λ) - t²/(t+μ) ₂F₁(μ, t+1; t+1+μ; λ)].

    The ratio of the two sides tends to 1 as T → ∞; it is near 1 once T ≫ |μ|³, so late for a λ
    near 1. B is analytic in |λ| < 1, positive on 0 ≤ λ < 1, hence zero at isolated points at most.

    Args:
        eigenvalue: λ of V.
        t: time of the hidden state, at least 1.
        T: a later time, or the same.

    Raises:
        AnalysisInputError: |λ| is 1 or more, or the times are not as they must be.
    """
    if not 1 <= t <= T:
        raise AnalysisInputError(f"t={t}, T={T}: 1 <= t <= T must hold")
    (lam,) = _inside_unit_disc([eigenvalue])
    mu = lam / (1 - lam)
    series = (t + 1) * _hypergeometric(mu, t, t + mu, lam)
    series -= t**2 / (t + mu) * _hypergeometric(mu, t + 1, t + 1 + mu, lam)
    # Near λ = 1 the powers in B and the product are huge and tiny: their logarithms are added.
    powers = (mu - 1) * np.log(1 - lam) + np.log1p(mu / np.arange(t, T)).sum()
    return complex(series * np.exp(powers) / T)


def fit_exponent(times: Sequence[int], norms: ArrayLike) -> float:
    """Return the least-squares slope of log ‖ds_T/dh_t‖ against log T."""
    return float(np.polyfit(np.log(np.asarray(times)), np.log(np.asarray(norms)), 1)[0])


def normal_matrix(
    eigenvalues: Sequence[complex], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return a random real normal matrix with these eigenvalues and the conjugates of complex ones.

    Args:
        eigenvalues: a real one stands for itself, a complex one for a conjugate pair.
        generator: draws the orthogonal basis.
    """
    blocks = [
        np.array([[z.real]]) if z.imag == 0 else np.array([[z.real, -z.imag], [z.imag, z.real]])
        for z in map(complex, eigenvalues)
    ]
    n = sum(map(len, blocks))
    D, at = np.zeros((n, n)), 0
    for block in blocks:
        D[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    Q = np.linalg.qr(generator.standard_normal((n, n)))[0]
    return np.asarray(Q @ D @ Q.T)


def _inside_unit_disc(eigenvalues: ArrayLike) -> NDArray[np.complex128]:
    values = np.atleast_1d(np.asarray(eigenvalues, dtype=np.complex128))
    if values.size == 0:
        raise AnalysisInputError("there is no eigenvalue: give one at least")
    if not np.max(np.abs(values)) < 1:  # so that NaN is told
        raise AnalysisInputError(
            f"an eigenvalue has modulus {np.max(np.abs(values)):.4g}: Theorem 1 is about moduli "
            "smaller than 1"
        )
    return values


def _hypergeometric(a: complex, b: complex, c: complex, z: complex) -> complex:
    """Return ₂F₁(a, b; c; z) for |z| < 1, by its series."""
    total = term = 1 + 0j
    n = 0
    while abs(term) > 1e-17 * abs(total):
        term *= (a + n) * (b + n) / ((c + n) * (n + 1)) * z
        total += term
        n += 1
    return total
