from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relagent.study.transfer.aggregate import (
    ScoreError,
    estimate_improvement,
    estimate_iqm,
    estimate_mean,
    estimate_profile,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_resamples,
)

Array = np.ndarray[Any, Any]


def scores(worlds: int = 3) -> st.SearchStrategy[Array]:
    sizes = st.integers(1, 5).map(lambda runs: (runs, worlds))
    return sizes.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(0, 1, width=16)))


def test_interquartile_mean_by_hand() -> None:
    # Sorted 0 1 2 3 4 5 6 100: without the lowest and the highest two, (2 + 3 + 4 + 5) / 4.
    assert interquartile_mean([[100, 0], [3, 2], [1, 4], [5, 6]]) == 3.5
    # Five values: a quarter of them, rounded down, is one at either end.
    assert interquartile_mean([[1], [10], [2], [3], [-50]]) == 2.0
    assert interquartile_mean([[0.25, 0.75]]) == 0.5


def test_probability_of_improvement_by_hand() -> None:
    # World 1: 1 > 0, 1 = 1, 3 > 0, 3 > 1: 3.5 of 4. World 2: 0 of 4.
    assert probability_of_improvement([[1, 3], [0, 0]], [[0, 1], [5, 5]]) == (3.5 / 4 + 0) / 2
    assert probability_of_improvement([[1.0]], [[1.0]]) == 0.5
    # Worlds count alike, whatever the numbers of their runs.
    assert probability_of_improvement([[1, 3], [0]], [[0, 1], [5, 5, -1]]) == (3.5 / 4 + 1 / 3) / 2


def test_performance_profile_by_hand() -> None:
    profile = performance_profile([[0.2, 0.9], [0.5, 0.5]], [0.0, 0.2, 0.5, 0.6, 0.9])
    assert profile.tolist() == [1.0, 0.75, 0.25, 0.25, 0.0]


def test_the_numbers_of_rliable() -> None:
    """Its 1.2.0 gave these for the same scores: 10,000, 2,000 and 5,000 resamples."""
    generator = np.random.default_rng(0)
    x, y = np.round(generator.random((5, 6)), 1), np.round(generator.random((3, 6)), 1)
    assert interquartile_mean(x) == pytest.approx(0.56875)
    assert interquartile_mean(y) == pytest.approx(0.5)
    assert estimate_iqm(x)[1:] == pytest.approx((0.425, 0.6875), abs=0.01)
    assert estimate_mean(x)[1:] == pytest.approx((0.42333, 0.63), abs=0.01)
    improvement = estimate_improvement([*x.T], [*y.T])
    assert improvement.value == pytest.approx(0.566667, abs=1e-6)
    assert improvement[1:] == pytest.approx((0.42222, 0.71667), abs=0.02)
    _, low, high = estimate_profile(x, [0.25, 0.5, 0.75])
    assert low == pytest.approx([0.63333, 0.43333, 0.13333], abs=0.035)
    assert high == pytest.approx([0.9, 0.7, 0.4], abs=0.035)


@settings(max_examples=25)
@given(scores(), scores())
def test_what_must_hold(x: Array, y: Array) -> None:
    left, right = [*x.T], [*y.T]
    won, lost = probability_of_improvement(left, right), probability_of_improvement(right, left)
    assert won == pytest.approx(1 - lost)
    assert x.min() <= interquartile_mean(x) <= x.max() + 1e-12
    assert interquartile_mean(x) == pytest.approx(interquartile_mean(x[::-1, ::-1]))
    profile = performance_profile(x, np.linspace(0, 1, 7))
    assert np.all(np.diff(profile) <= 0)
    assert profile[-1] == 0.0
    for value, low, high in (estimate_mean(x, 200), estimate_improvement(left, right, 200)):
        assert 0 <= low <= high <= 1
        assert 0 <= value <= 1


def test_resamples_keep_to_their_world() -> None:
    table = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    drawn = stratified_resamples(table, 500)
    assert drawn.shape == (500, 3, 2)
    assert set(np.unique(drawn[:, :, 0])) == {1.0, 2.0, 3.0}
    assert set(np.unique(drawn[:, :, 1])) == {10.0, 20.0, 30.0}
    # The worlds are drawn independently of each other.
    assert np.any(drawn[:, :, 1] != 10 * drawn[:, :, 0])


def test_one_run_has_no_spread() -> None:
    assert estimate_mean([[0.25, 0.75]]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("bad", [[], [1.0, 2.0], [[np.nan]], np.zeros((0, 3))])
def test_what_is_no_matrix_is_refused(bad: Any) -> None:
    with pytest.raises(ScoreError, match=r"\[runs, worlds\]"):
        interquartile_mean(bad)


def test_other_worlds_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match="2 worlds cannot be compared with 1"):
        probability_of_improvement([[1], [2]], [[1]])
