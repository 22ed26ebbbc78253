"""Short-sighted episodes: what is cut, for how long, and that it can be repeated."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.envs import ShortSightedVecEnv, SightError, make_vec_env
from relagent.envs.sight import distances
from relagent.rl.worlds import ReplayableVecEnv

WORLD = "MiniGrid-DoorKey-5x5-v0"


class Shown(VecEnvWrapper):
    """Keeps what the world showed, and what it said of the step."""

    def reset(self) -> VecEnvObs:
        """See ``VecEnv``."""
        self.observations: Any = self.venv.reset()
        return self.observations  # type: ignore[no-any-return]

    def step_wait(self) -> VecEnvStepReturn:
        """See ``VecEnv``."""
        step = self.venv.step_wait()
        self.observations, self.infos = step[0], [dict(info) for info in step[3]]
        return step


def worlds(share: float, n_envs: int = 8) -> tuple[ShortSightedVecEnv, Shown]:
    """Short-sighted worlds, and the same as they are."""
    shown = Shown(make_vec_env(WORLD, n_envs, seed=0, backend="minigrid"))
    return ShortSightedVecEnv(shown, share, seed=3), shown


def test_the_agent_stands_in_the_middle_of_the_last_row() -> None:
    table = distances(7)
    assert table[3, 6] == 0
    assert table[3, 5] == table[2, 6] == table[4, 5] == 1
    assert table[0, 6] == 3 and table[3, 0] == table[0, 0] == 6


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_is_within_the_range_of_the_episode_is_seen(share: float) -> None:
    envs, shown = worlds(share)
    rng = np.random.default_rng(0)
    observations: Any = envs.reset()
    ranges = envs._ranges.copy()
    short_episodes = episodes = 0
    for _ in range(600):
        for e, reach in enumerate(ranges):
            within = distances(7) <= reach
            image, whole = observations["image"][e], shown.observations["image"][e]
            assert np.array_equal(image[within], whole[within])
            assert not image[~within].any()
        observations, _, dones, infos = envs.step(rng.integers(0, 7, envs.num_envs))
        for e in np.flatnonzero(dones):
            short = ranges[e] < 7
            short_episodes, episodes = short_episodes + short, episodes + 1
            assert ("episode" in infos[e]) == ("is_success" in infos[e]) == (not short)
            last, whole = (i[e]["terminal_observation"] for i in (infos, shown.infos))
            within = distances(7) <= ranges[e]
            assert np.array_equal(last["image"][within], whole["image"][within])
            assert not last["image"][~within].any()
            assert last["direction"] == whole["direction"]
        assert (envs._ranges == ranges)[~dones].all()
        ranges = envs._ranges.copy()
        assert ((ranges == 7) | ((ranges >= 1) & (ranges <= 5))).all()
    assert episodes > 10
    if share != 0.5:
        assert short_episodes == share * episodes


def test_other_parts_and_rewards_stay() -> None:
    envs, shown = worlds(1.0)
    observations: Any = envs.reset()
    for part in ("direction", "previous_action"):
        assert np.array_equal(observations[part], shown.observations[part])
    assert not np.array_equal(observations["image"], shown.observations["image"])


def test_worlds_and_ranges_can_be_replayed() -> None:
    envs, again = (ReplayableVecEnv(worlds(0.5)[0]) for _ in range(2))
    rng = np.random.default_rng(1)
    envs.restart(11)
    for _ in range(300):
        observations: Any = envs.step(rng.integers(0, 7, envs.num_envs))[0]
    replayed: Any = again.replay(envs.snapshot())
    assert np.array_equal(replayed["image"], observations["image"])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_probability(share: float) -> None:
    with pytest.raises(SightError, match="use 0 to 1"):
        worlds(share)


def test_without_a_view_there_is_nothing_to_cut() -> None:
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    assert isinstance(venv.observation_space, spaces.Box)
    with pytest.raises(SightError, match="image"):
        ShortSightedVecEnv(venv, 0.5)
