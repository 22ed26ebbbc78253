from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relagent.envs import SeedError, evaluation_seeds, training_seeds


@given(seed=st.integers(0, 2**64), n=st.integers(1, 600))
def test_training_seeds_are_different_and_in_their_half(seed: int, n: int) -> None:
    seeds = training_seeds(seed, n)
    assert len(set(seeds)) == n
    assert all(0 <= s < 2**30 for s in seeds)
    assert training_seeds(seed, n + 7)[:n] == seeds


def test_neighbouring_seeds_share_nothing() -> None:
    assert not set(training_seeds(0, 1000)) & set(training_seeds(1, 1000))


def test_the_hash_is_stable() -> None:
    # Published results name their seeds; these must mean the same worlds for ever.
    assert training_seeds(0, 3) == [821328062, 455923687, 745650761]


@given(n=st.integers(0, 500), offset=st.integers(0, 10_000))
def test_evaluation_seeds_are_numbered_in_the_other_half(n: int, offset: int) -> None:
    seeds = evaluation_seeds(n, offset)
    assert len(seeds) == n
    assert all(2**30 <= s < 2**31 for s in seeds)
    assert seeds == evaluation_seeds(n + offset)[offset:]


def test_seeds_outside_their_range_are_named() -> None:
    with pytest.raises(SeedError, match="negative: choose 0 or more"):
        training_seeds(-1, 4)
    with pytest.raises(SeedError, match="stay within 0 to"):
        evaluation_seeds(2, offset=2**30 - 1)
