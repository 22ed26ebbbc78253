"""Sparse attention: the gradient's lower bound by dependency depth (section A.4).

With J_t = V, f = h + c and uniform attention over the attended set A_T of size κ_T ≤ κ,

    ds_T/dh_t = p_T(V),    p_T(λ) = Σ_s χ_{0:T-t}(s) λ^s                       (278, 283)

is a polynomial with non-negative coefficients. Each term is a path from h_t to s_T: an edge is
either the direct one h_i → s_i, of weight 1, or one of attention h_i → s_T, of weight 1/κ_T;
between two edges lies the recurrence s_i → h_{i+1}, a factor V. The **dependency depth** is the
smallest number of factors V on any such path.

An attention pattern is a sequence of sets: ``pattern[T]`` is A_T for times T = 1, 2, ...;
``pattern[0]`` is not used; equation numbers are those of the appendix. A time outside the pattern,
or a set with a member of its future, raises
:class:`~relagent.analysis.gradients.AnalysisInputError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from relagent.analysis.gradients import AnalysisInputError
from relagent.memories import Attention

Pattern = Sequence[Collection[int]]
Number = TypeVar("Number", Fraction, float, complex)


def path_polynomials(pattern: Pattern, t: int, eigenvalue: Number) -> list[Number]:
    """Return p_T(λ) for T = t, t+1, ... to the end of the pattern (equations 276-283).

    p_T = 1[t ∈ A_T]/κ_T + λ/κ_T Σ_{i ∈ A_T, i > t} p_{i-1} + λ p_{T-1},   p_t = 1 + 1[t ∈ A_t]/κ_t

    Args:
        pattern: the attended sets.
        t: time of the hidden state.
        eigenvalue: λ, of V; exact for a ``Fraction``.
    """
    _check(pattern, t)
    p: list[Number] = []
    for T in range(t, len(pattern)):
        attended = sum((p[i - 1 - t] for i in pattern[T] if i > t), start=0 * eigenvalue)
        hit = int(t in pattern[T])
        direct = eigenvalue * p[-1] if p else 1 + 0 * eigenvalue
        p.append(direct + (hit + eigenvalue * attended) / max(len(pattern[T]), 1))
    return p


def chi(pattern: Pattern, t: int, k: int) -> list[Fraction]:
    """Return [χ_{0:k}(0), ..., χ_{0:k}(k)] exactly (equations 279-280).

    Args:
        pattern: the attended sets.
        t: time of the hidden state.
        k: steps after it, at least 0.
    """
    if k < 0:
        raise AnalysisInputError(f"k={k}: it must not be negative")
    _check(pattern, t, t + k)
    rows: list[list[Fraction]] = []
    for T in range(t, t + k + 1):
        weight = Fraction(1, max(len(pattern[T]), 1))
        row = [weight * (t in pattern[T]) + (t == T)]
        for s in range(1, T - t + 1):
            attended = (rows[i - 1 - t][s - 1] for i in pattern[T] if i > t and s <= i - t)
            row.append(weight * sum(attended, start=Fraction(0)) + rows[-1][s - 1])
        rows.append(row)
    return rows[k]


def dependency_depths(pattern: Pattern, t: int) -> list[int]:
    """Return the dependency depth of s_T on h_t for T = t, t+1, ...: the fewest V on any path."""
    _check(pattern, t)
    depths: list[int] = []
    for T in range(t, len(pattern)):
        # s_T reads h_T (directly) and h_i (by attention); h_i reads s_{i-1} through one V.
        reads = [i for i in {T, *pattern[T]} if i >= t]
        depths.append(min(0 if i == t else depths[i - 1 - t] + 1 for i in reads))
    return depths


def lower_bound(eigenvalue: Number, kappa: int, depth: int) -> Number:
    """Return λ^d / κ^(d+1): Theorem 2 with its constants, for 0 < λ and dependency depth d.

    The printed rate is 1/κ^d; its proof has d factors V and therefore d + 1 edges (equation 291),
    so 1/κ^(d+1), and :func:`chain_pattern` attains that.
    """
    bound = eigenvalue**0 / kappa
    for _ in range(depth):
        bound = bound * eigenvalue / kappa
    return bound


def chain_pattern(kappa: int, depth: int, steps: int, gap: int = 3) -> tuple[list[list[int]], int]:
    """Return a pattern in which late states depend on h_t at exactly this depth, and its t.

    Every A_T has κ members (as soon as there are κ states). States 1..κ are fillers that know
    nothing of h_t, t = κ + 1. One link after the other, a single step attends to the newest link,
    and the state right after it is the next link; after ``depth`` links every step attends to the
    last.

    Args:
        kappa: κ, at least 1.
        depth: d, at least 0.
        steps: T of the last set; must leave room for the chain.
        gap: steps between a link and the step that attends to it, at least 2.

    Raises:
        AnalysisInputError: the chain does not fit.
    """
    t = kappa + 1
    if kappa < 1 or depth < 0 or gap < 2 or steps < t + (depth + 1) * (gap + 1):
        raise AnalysisInputError(
            f"kappa={kappa}, depth={depth}, gap={gap}, steps={steps}: kappa >= 1, depth >= 0, "
            "gap >= 2 and steps >= kappa + 1 + (depth + 1)(gap + 1) must hold"
        )
    pattern = [list(range(1, min(T, kappa) + 1)) for T in range(steps + 1)]
    link = t
    for _ in range(depth):
        pattern[link + gap] = [*range(1, kappa), link]
        link += gap + 1
    for T in range(link + gap, steps + 1):
        pattern[T] = [*range(1, kappa), link]
    return pattern, t


def attention_pattern(look: Attention, row: int = 0) -> list[list[int]]:
    """Return the sets of remembered states of one row of a trace.

    Args:
        look: from :meth:`Memory.trace`, of one episode, from its first step.
        row: which row of the batch.

    Raises:
        AnalysisInputError: something is remembered from before the trace.
    """
    pattern: list[list[int]] = [[]]
    for T, ages in enumerate(look.ages[:, row].tolist(), start=1):
        members = sorted(T - age for age in ages if age >= 0)
        if members and members[0] < 1:
            raise AnalysisInputError(
                f"step {T} remembers what was before the trace: begin with an empty memory"
            )
        pattern.append(members)
    return pattern


def depth_matrix(pattern: Pattern) -> NDArray[np.int64]:
    """Return the dependency depth of every s_T on every h_t, -1 where t > T.

    Returns:
        [T, T]; entry T, t, where index 0 is time 1.
    """
    _check(pattern)
    T_end = len(pattern) - 1
    far = np.iinfo(np.int64).max // 2
    to_s = np.full((T_end + 1, T_end + 1), far)  # [T, t]
    for T in range(1, T_end + 1):
        reads = sorted({T, *pattern[T]})
        through = to_s[[i - 1 for i in reads]].min(axis=0) + 1
        through[reads] = 0  # h_t itself is read
        to_s[T] = np.minimum(through, far)
    depths = to_s[1:, 1:]
    return np.where(depths >= far, -1, depths)


def _check(pattern: Pattern, *times: int) -> None:
    """Check that the pattern covers the times, and that no set has a member of its future."""
    for t in times:
        if not 1 <= t < len(pattern):
            raise AnalysisInputError(
                f"time {t} is outside the pattern, which covers 1..{len(pattern) - 1}"
            )
    for T, attended in enumerate(pattern):
        for i in attended if T else ():
            if not 1 <= i <= T:
                raise AnalysisInputError(f"A_{T} has a member {i}: members must be from 1 to {T}")
