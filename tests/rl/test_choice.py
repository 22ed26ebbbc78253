"""A row's choices follow its distribution and depend on its own stream alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    SquashedDiagGaussianDistribution,
)

from relagent.rl.categorical import LeanCategorical
from relagent.rl.choice import choose

ROWS = 4000
MADE = {
    "categorical": LeanCategorical(3).proba_distribution(torch.tensor([[0.3, -1.0, 1.2]] * ROWS)),
    "multi": MultiCategoricalDistribution([2, 3]).proba_distribution(
        torch.tensor([[0.5, -0.5, 0.3, -1.0, 1.2]] * ROWS)
    ),
    "bernoulli": BernoulliDistribution(2).proba_distribution(torch.tensor([[-1.0, 0.7]] * ROWS)),
    "gaussian": DiagGaussianDistribution(2).proba_distribution(
        torch.tensor([[0.5, -2.0]] * ROWS), torch.tensor([-1.0, 0.3])
    ),
}


class Told:
    """A stream that draws what it is told to."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def streams(numbers: Sequence[float]) -> list[np.random.Generator]:
    return [cast(np.random.Generator, Told(number)) for number in numbers]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=7))
def test_choices_follow_the_probabilities(logits: list[float]) -> None:
    def made(rows: int) -> Distribution:
        return LeanCategorical(len(logits)).proba_distribution(torch.tensor([logits] * rows))

    n = 2000
    chosen = choose(made(n), streams([(i + 0.5) / n for i in range(n)]))
    shares = np.bincount(chosen, minlength=len(logits)) / n
    probabilities = torch.tensor(logits).double().softmax(0).numpy()
    np.testing.assert_allclose(shares, probabilities, atol=1.5 / n)
    assert choose(made(1), None) == int(np.argmax(np.array(logits, dtype=np.float32)))
    assert choose(made(1), streams([np.nextafter(1, 0)])) < len(logits)


@pytest.mark.parametrize("name", MADE)
def test_choices_are_those_of_the_distribution(name: str) -> None:
    made = MADE[name]
    chosen = choose(made, [np.random.default_rng(i) for i in range(ROWS)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sampled = made.sample()
    assert chosen.shape == sampled.shape
    assert chosen.dtype == sampled.dtype
    ours, theirs = chosen.double(), sampled.double()
    error = 5 * theirs.std(0) / ROWS**0.5
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 2 * error).all()
    assert ((ours.std(0) - theirs.std(0)).abs() <= 2 * error).all()
    assert torch.equal(choose(made, None), made.mode())


@pytest.mark.parametrize("name", MADE)
def test_a_row_chooses_by_its_own_stream(name: str) -> None:
    def drawn(seeds: list[int]) -> torch.Tensor:
        return choose(MADE[name], [np.random.default_rng(seed) for seed in seeds])

    one, other = list(range(ROWS)), [0, *range(ROWS, 2 * ROWS - 1)]
    left, right = drawn(one), drawn(other)
    assert torch.equal(left[0], right[0])
    assert not torch.equal(left, right)


def test_a_distribution_that_nobody_here_makes() -> None:
    made: Any = SquashedDiagGaussianDistribution(1)
    made.proba_distribution(torch.zeros(1, 1), torch.zeros(1))
    with pytest.raises(TypeError, match="no way to draw"):
        choose(made, [np.random.default_rng(0)])
