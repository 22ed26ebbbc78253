"""Impaired sight: what is unseen, for how long, and that it can be repeated."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.envs import ImpairedSightVecEnv, Impairments, SightError, make_vec_env
from relagent.envs.sight import distances
from relagent.rl.worlds import ReplayableVecEnv

WORLD = "MiniGrid-DoorKey-5x5-v0"


class Shown(VecEnvWrapper):
    """Keeps what the world showed, and what it said of the step."""

    def reset(self) -> VecEnvObs:
        """See ``VecEnv``."""
        self.observations: Any = self.venv.reset()
        return self.observations

    def step_wait(self) -> VecEnvStepReturn:
        """See ``VecEnv``."""
        step = self.venv.step_wait()
        self.observations, self.infos = step[0], [dict(info) for info in step[3]]
        return step


def worlds(n_envs: int = 8, **shares: float) -> tuple[ImpairedSightVecEnv, Shown]:
    """Worlds with impaired sight, and the same as they are."""
    shown = Shown(make_vec_env(WORLD, n_envs, seed=0, backend="minigrid"))
    return ImpairedSightVecEnv(shown, Impairments(**shares), seed=3), shown


def test_the_agent_stands_in_the_middle_of_the_last_row() -> None:
    table = distances(7)
    assert table[3, 6] == 0
    assert table[3, 5] == table[2, 6] == table[4, 5] == 1
    assert table[0, 6] == 3 and table[3, 0] == table[0, 0] == 6


SHARES = [
    Impairments(),
    Impairments(short_sight=0.5),
    Impairments(short_sight=1),
    Impairments(blind_spells=1),
    Impairments(dead_cells=1),
    Impairments(0.3, 0.3, 0.3),
]


@pytest.mark.parametrize("shares", SHARES)
def test_what_is_not_visible_is_0_and_all_else_is_as_it_was(shares: Impairments) -> None:
    envs, shown = worlds(**shares._asdict())
    rng = np.random.default_rng(0)
    observations: Any = envs.reset()
    impaired_episodes = episodes = 0
    for _ in range(600):
        assert np.array_equal(observations["image"], cut(shown.observations, envs.visible))
        assert envs.visible[:, 3, 6].all()
        assert envs.visible[~envs.impaired].all()
        impaired = envs.impaired
        observations, _, dones, infos = envs.step(rng.integers(0, 7, envs.num_envs))
        for e in np.flatnonzero(dones):
            episodes, impaired_episodes = episodes + 1, impaired_episodes + impaired[e]
            assert ("episode" in infos[e]) == ("is_success" in infos[e]) == (not impaired[e])
            last, whole = (i[e]["terminal_observation"] for i in (infos, shown.infos))
            hidden = (last["image"] != whole["image"]).any(axis=-1)
            assert not last["image"][hidden].any()
            assert impaired[e] or not hidden.any()
            assert last["direction"] == whole["direction"]
        assert (envs.impaired == impaired)[~dones].all()
    assert episodes > 10
    if max(shares) < 1:
        assert 0 < impaired_episodes < episodes or not any(shares)
    elif shares.dead_cells < 1:  # an episode may happen to have no dead cell
        assert impaired_episodes == episodes


def cut(observations: Any, visible: np.ndarray) -> np.ndarray:
    """The images with 0 where nothing is visible."""
    return np.where(visible[..., None], observations["image"], 0)


def still(envs: ImpairedSightVecEnv, steps: int) -> np.ndarray:
    """What is visible while everybody turns left for some steps, which ends no episode."""
    envs.reset()
    seen = []
    for _ in range(steps):
        envs.step(np.zeros(envs.num_envs, np.int64))
        seen.append(envs.visible)
    return np.array(seen)


def test_ranges_are_drawn_once_an_episode() -> None:
    visible = still(worlds(64, short_sight=1)[0], 5)
    assert (visible == visible[0]).all()
    ranges = [{reach for reach in range(8) if np.array_equal(v, distances(7) <= reach)}
              for v in visible[0]]  # fmt: skip
    assert all(len(reach) == 1 for reach in ranges)
    assert set.union(*ranges) == {1, 2, 3, 4, 5}


def test_blind_spells_come_and_go() -> None:
    visible = still(worlds(64, blind_spells=1)[0], 240)
    blind = visible.sum(axis=(2, 3)) == 1
    assert visible[~blind].all()
    begins, ends = ~blind[:-1] & blind[1:], blind[:-1] & ~blind[1:]
    assert blind.mean() == pytest.approx(1 / 3, abs=0.03)
    assert begins.sum() / (~blind[:-1]).sum() == pytest.approx(1 / 16, abs=0.01)
    assert ends.sum() / blind[:-1].sum() == pytest.approx(1 / 8, abs=0.015)


def test_dead_cells_stay_dead() -> None:
    visible = still(worlds(256, dead_cells=1)[0], 5)
    assert (visible == visible[0]).all()
    alive = visible[0].reshape(256, 49).mean(axis=1)
    assert alive.min() < 0.2 and alive.max() > 0.95
    assert alive.mean() == pytest.approx(1 - 0.45 * 48 / 49, abs=0.05)


def test_other_parts_and_rewards_stay() -> None:
    envs, shown = worlds(short_sight=1)
    observations: Any = envs.reset()
    for part in ("direction", "previous_action"):
        assert np.array_equal(observations[part], shown.observations[part])
    assert not np.array_equal(observations["image"], shown.observations["image"])


def test_worlds_and_impairments_can_be_replayed() -> None:
    envs, again = (
        ReplayableVecEnv(worlds(short_sight=0.5, blind_spells=0.5, dead_cells=0.5)[0])
        for _ in range(2)
    )
    rng = np.random.default_rng(1)
    envs.restart(11)
    for _ in range(300):
        observations: Any = envs.step(rng.integers(0, 7, envs.num_envs))[0]
    replayed: Any = again.replay(envs.snapshot())
    assert np.array_equal(replayed["image"], observations["image"])


@pytest.mark.parametrize("share", [-0.1, 1.5])
@pytest.mark.parametrize("impairment", Impairments._fields)
def test_a_share_is_a_probability(impairment: str, share: float) -> None:
    with pytest.raises(SightError, match="use 0 to 1"):
        worlds(**cast(Any, {impairment: share}))


def test_without_a_view_there_is_nothing_to_cut() -> None:
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    assert isinstance(venv.observation_space, spaces.Box)
    with pytest.raises(SightError, match="image"):
        ImpairedSightVecEnv(venv, Impairments(0.5))
