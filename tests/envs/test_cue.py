"""The cue worlds: what is seen, what is rewarded, and when."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import relagent.envs  # noqa: F401  # registers the worlds
from relagent.envs.cue import DELAYS, Cue


@pytest.mark.parametrize("delay", DELAYS)
def test_the_registered_worlds_are_gymnasium_worlds(delay: int) -> None:
    env = gym.make(f"relagent/Cue{delay}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    steps, over = 0, False
    while not over:
        _, _, terminated, truncated, _ = env.step(0)
        steps, over = steps + 1, terminated or truncated
    assert steps == delay + 1
    assert terminated and not truncated


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("right", [True, False])
def test_the_answer_is_the_cue_and_nothing_else_is_seen_or_rewarded(seed: int, right: bool) -> None:
    env = Cue(delay=5)
    first, _ = env.reset(seed=seed)
    assert sorted(first.tolist()) == [0, 0, 1] and first[2] == 0
    cue = np.int64(first[1])
    seen = []
    for t in range(6):
        # Only the answer counts, whatever was done before.
        action = cue if (t == 5) == right else 1 - cue
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(observation.tolist())
        assert terminated == (t == 5) and not truncated
        assert reward == float(right and t == 5) and info["is_success"] == bool(reward)
    assert seen == [[0, 0, 0]] * 4 + [[0, 0, 1], [0, 0, 0]]


def test_both_cues_come_equally_often_and_a_seed_says_which() -> None:
    env = Cue(delay=1)
    cues = [int(env.reset(seed=seed)[0][1]) for seed in range(200)]
    assert cues == [int(env.reset(seed=seed)[0][1]) for seed in range(200)]
    assert 70 < sum(cues) < 130


@pytest.mark.parametrize("delay", [0, -1])
def test_a_delay_below_one_is_refused(delay: int) -> None:
    with pytest.raises(ValueError, match="choose 1 or more"):
        Cue(delay)
