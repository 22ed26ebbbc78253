"""Scores of few runs over several worlds, put together as Agarwal et al. (2021) propose.

Their definitions, of "Deep reinforcement learning at the edge of the statistical precipice"
(NeurIPS 2021, arXiv 2108.13264), are written here anew: their library, rliable 1.2.0, needs arch,
which (7.2.0) cannot be imported beside pandas 3. Scores are a matrix [runs, worlds] throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from relagent.errors import RelagentError
from relagent.rl.report import LEVEL, RESAMPLES

Array = np.ndarray[Any, Any]


class ScoreError(RelagentError):
    """Scores that are no matrix of finite numbers."""


class Estimate(NamedTuple):
    """A number and its confidence interval."""

    value: float
    low: float
    high: float


def matrix(scores: ArrayLike) -> Array:
    """Check scores and return them as float64 [runs, worlds].

    Raises:
        ScoreError: they are none.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ScoreError(
            f"scores must be finite numbers [runs, worlds], not {list(table.shape)} or with gaps: "
            "take the runs that played all worlds"
        )
    return table


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores, runs and worlds together (section 4.3).

    A quarter of the scores, rounded down, is left out at either end.
    """
    return float(_middle(matrix(scores).reshape(1, -1))[0])


def _middle(flat: Array) -> Array:
    """Interquartile means of rows: [S, N] -> [S]."""
    cut = flat.shape[1] // 4
    return np.asarray(np.sort(flat, axis=1)[:, cut : flat.shape[1] - cut].mean(axis=1))


def probability_of_improvement(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
    """Probability that a run of X beats a run of Y on a world drawn at random (section 4.3).

    P(X > Y) = mean over worlds w and pairs of runs (i, j) of [x_iw > y_jw] + ½ [x_iw = y_jw],
    which is the Mann-Whitney statistic. It says nothing about by how much.

    Args:
        x: for each world, the scores of X's runs there; worlds may have different numbers of them.
        y: the same of Y.

    Raises:
        ScoreError: the worlds are not as many.
    """
    return float(np.mean([_wins(*columns) for columns in _by_world(x, y)]))


def _by_world(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> list[tuple[Array, Array]]:
    """The scores of both in each world, [runs of X, 1] and [runs of Y, 1]."""
    if len(x) != len(y):
        raise ScoreError(f"{len(x)} worlds cannot be compared with {len(y)}: give the same ones")
    return [
        (matrix(np.reshape(a, (-1, 1))), matrix(np.reshape(b, (-1, 1))))
        for a, b in zip(x, y, strict=True)
    ]


def _wins(x: Array, y: Array) -> Array:
    """Share of the pairs of runs that X wins in a world: [.., N, 1], [.., M, 1] -> [..]."""
    difference = x - y.swapaxes(-1, -2)
    return np.asarray(((np.sign(difference) + 1) / 2).mean(axis=(-2, -1)))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of runs that score more than each threshold, over all worlds (section 4.2): [K]."""
    table = matrix(scores)
    return np.asarray((table[..., None] > np.asarray(thresholds)).mean(axis=(0, 1)))


def stratified_resamples(scores: ArrayLike, resamples: int, seed: int = 0) -> Array:
    """Draw runs with replacement, in each world by itself (section 4.1): [S, runs, worlds]."""
    table = matrix(scores)
    runs, worlds = table.shape
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs, worlds))
    return np.asarray(np.take_along_axis(table[None], drawn, axis=1))


def estimate_mean(scores: ArrayLike, resamples: int = RESAMPLES) -> Estimate:
    """Mean of all scores, with a percentile interval of the stratified bootstrap."""
    table = matrix(scores)
    return _estimate(float(table.mean()), stratified_resamples(table, resamples).mean(axis=(1, 2)))


def estimate_iqm(scores: ArrayLike, resamples: int = RESAMPLES) -> Estimate:
    """Interquartile mean, with a percentile interval of the stratified bootstrap."""
    table = matrix(scores)
    drawn = stratified_resamples(table, resamples).reshape(resamples, -1)
    return _estimate(interquartile_mean(table), _middle(drawn))


def estimate_improvement(
    x: Sequence[ArrayLike], y: Sequence[ArrayLike], resamples: int = RESAMPLES
) -> Estimate:
    """Probability of improvement; the runs of X and of Y are drawn independently in each world."""
    drawn = [
        _wins(
            stratified_resamples(left, resamples, seed=2 * world),
            stratified_resamples(right, resamples, seed=2 * world + 1),
        )
        for world, (left, right) in enumerate(_by_world(x, y))
    ]
    return _estimate(probability_of_improvement(x, y), np.mean(drawn, axis=0))


def estimate_profile(
    scores: ArrayLike, thresholds: Sequence[float] | Array, resamples: int = 2_000
) -> tuple[Array, Array, Array]:
    """Performance profile, and the ends of its pointwise interval: three arrays [K]."""
    drawn = stratified_resamples(scores, resamples)
    shares = np.stack([(drawn > threshold).mean(axis=(1, 2)) for threshold in thresholds], axis=1)
    low, high = np.quantile(shares, _ends(), axis=0)
    return performance_profile(scores, thresholds), low, high


def _estimate(value: float, drawn: Array) -> Estimate:
    low, high = np.quantile(drawn, _ends())
    return Estimate(value, float(low), float(high))


def _ends() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
