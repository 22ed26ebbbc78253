from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

from relagent.envs import (
    NO_ACTION,
    ActionError,
    BackendError,
    EnvPoolVecEnv,
    GridObservation,
    ObservationPartsError,
    PoolAttributeError,
    PoolClosedError,
    PoolCopyError,
    SeedError,
    make_vec_env,
    pool_ids,
)

DOORKEY = "MiniGrid-DoorKey-5x5-v0"
FETCH = "MiniGrid-Fetch-5x5-N2-v0"
BABYAI = "BabyAI-GoToLocal-v0"
BACKENDS = ["envpool", "minigrid"]

Array = np.ndarray[Any, Any]


def _play(venv: Any, steps: int, seed: int = 0) -> list[tuple[dict[str, Array], Array, Array]]:
    rng = np.random.default_rng(seed)
    record = [(venv.reset(), np.zeros(0), np.zeros(0))]
    for _ in range(steps):
        obs, reward, done, _ = venv.step(rng.integers(0, 7, venv.num_envs))
        record.append((obs, reward, done))
    return record


def _same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x[1], y[1])
        and np.array_equal(x[2], y[2])
        and all(np.array_equal(x[0][k], y[0][k]) for k in x[0])
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("env_id", [DOORKEY, FETCH, BABYAI])
def test_episodes_and_observations_are_accounted_for(backend: Any, env_id: str) -> None:
    n, steps = 6, 280
    venv: Any = make_vec_env(env_id, n, 3, backend=backend)
    rng = np.random.default_rng(3)
    obs: Any = venv.reset()
    assert (obs["previous_action"] == NO_ACTION).all()
    returns, lengths, episodes = np.zeros(n), np.zeros(n, dtype=int), 0
    for _ in range(steps):
        actions = rng.integers(0, 7, n)
        missions = obs.get("mission")
        obs, reward, done, infos = venv.step(actions)
        returns += reward
        lengths += 1
        for space, values in ((s, obs[k]) for k, s in venv.observation_space.items()):
            assert values.dtype == space.dtype
            assert values.shape == (n, *space.shape)
        assert len({id(info) for info in infos}) == n
        for i, info in enumerate(infos):
            assert venv.observation_space.contains({k: v[i] for k, v in obs.items()})
            if not done[i]:
                assert obs["previous_action"][i] == actions[i]
                assert not {"terminal_observation", "episode", "is_success"} & set(info)
                assert info["TimeLimit.truncated"] is False
                continue
            episodes += 1
            assert obs["previous_action"][i] == NO_ACTION
            last = info["terminal_observation"]
            assert venv.observation_space.contains(last)
            assert last["previous_action"] == actions[i]
            if missions is not None:
                assert np.array_equal(last["mission"], missions[i])
            assert info["episode"]["r"] == pytest.approx(returns[i], abs=1e-6)
            assert info["episode"]["l"] == lengths[i]
            assert info["episode"]["t"] >= 0
            assert info["is_success"] == (reward[i] > 0)
            assert not (info["TimeLimit.truncated"] and info["is_success"])
            returns[i], lengths[i] = 0, 0
    assert episodes >= n


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_agent_that_never_moves_is_truncated_at_the_limit(backend: Any) -> None:
    venv: Any = make_vec_env(DOORKEY, 3, 0, backend=backend)
    first: Any = venv.reset()
    assert venv.get_attr("max_steps") == [250] * 3
    for step in range(1, 251):
        obs, _, done, infos = venv.step(np.full(3, 6))
        assert (done == (step == 250)).all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    for i, info in enumerate(infos):
        assert np.array_equal(info["terminal_observation"]["image"], first["image"][i])
    assert (obs["previous_action"] == NO_ACTION).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_observations_once_given_stay_as_they_were(backend: Any) -> None:
    venv: Any = make_vec_env(FETCH, 4, 0, backend=backend)
    seen: Any = venv.reset()
    kept = copy.deepcopy(seen)
    for _ in range(50):
        venv.step(np.random.default_rng(0).integers(0, 7, 4))
    assert all(np.array_equal(seen[k], kept[k]) for k in kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_run(backend: Any) -> None:
    first = _play(make_vec_env(FETCH, 5, 1, backend=backend), 60)
    assert _same(first, _play(make_vec_env(FETCH, 5, 1, backend=backend), 60))
    assert not _same(first, _play(make_vec_env(FETCH, 5, 2, backend=backend), 60))


def test_threads_do_not_change_the_run() -> None:
    runs = [_play(make_vec_env(FETCH, 9, 1, n_threads=t), 80) for t in (1, 3)]
    assert _same(*runs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeding_again_restarts_the_run_at_the_next_reset(backend: Any) -> None:
    venv: Any = make_vec_env(FETCH, 4, 1, backend=backend)
    first = _play(venv, 40)
    assert not _same(first, _play(venv, 40))  # without a seed the streams go on
    assert len(set(venv.seed(1))) == 4
    venv.step(np.zeros(4, dtype=int))  # takes effect at the reset, not before
    assert _same(first, _play(venv, 40))
    venv.seed(8)
    other = _play(venv, 40)
    assert _same(other, _play(make_vec_env(FETCH, 4, 8, backend=backend), 40))


@pytest.mark.parametrize("backend", BACKENDS)
def test_environments_differ_from_each_other(backend: Any) -> None:
    obs: Any = make_vec_env("MiniGrid-DoorKey-8x8-v0", 12, 0, backend=backend).reset()
    assert len({row.tobytes() for row in obs["image"]}) > 6


def test_no_seed_means_a_fresh_one() -> None:
    venv: Any = make_vec_env(FETCH, 4, 1)
    assert venv.seed() != venv.seed()


@pytest.mark.parametrize(
    "actions",
    [
        np.array([0, 1, 7]),
        np.array([0, -1, 2]),
        np.array([0, 1]),
        np.array([[0], [1], [2]]),
        np.array([0.0, 2.9, 1.0]),
        np.array([0, 258, 1]),
        np.array([True, False, True]),
    ],
)
def test_actions_that_envpool_would_die_of_are_refused(actions: Array) -> None:
    venv: Any = make_vec_env(DOORKEY, 3, 0, backend="envpool")
    venv.reset()
    with pytest.raises(ActionError, match=r"give integers of shape \(3,\)|takes 0 to 6"):
        venv.step(actions)
    venv.step(np.array([0, 1, 2], dtype=np.uint8))  # and the pool lives on


def test_worlds_with_fewer_actions_keep_them() -> None:
    venv: Any = make_vec_env("MiniGrid-Dynamic-Obstacles-5x5-v0", 2, 0, backend="envpool")
    venv.reset()
    assert venv.action_space.n == 3
    with pytest.raises(ActionError, match="takes 0 to 2"):
        venv.step(np.array([0, 3]))


def test_what_a_pool_cannot_do_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    venv: Any = make_vec_env(DOORKEY, 2, 0, backend="envpool")
    with pytest.raises(PoolClosedError, match=r"call reset\(\) first"):
        venv.step(np.zeros(2, dtype=int))
    venv.reset()
    with pytest.raises(PoolClosedError, match="call step_async"):
        venv.step_wait()
    with pytest.raises(PoolAttributeError, match="no attribute 'grid'"):
        venv.get_attr("grid")
    with pytest.raises(PoolAttributeError, match="cannot be set"):
        venv.set_attr("max_steps", 3)
    with pytest.raises(PoolAttributeError, match="cannot be called"):
        venv.env_method("gen_obs")
    with pytest.raises(PoolCopyError, match="cannot be copied"):
        copy.deepcopy(venv)
    with pytest.raises(PoolCopyError, match="cannot be copied"):
        pickle.dumps(venv)
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        for use in (venv.reset, lambda: venv.step(np.zeros(2, dtype=int))):
            with pytest.raises(PoolClosedError, match="before the process forked"):
                use()
    venv.close()
    venv.close()
    with pytest.raises(PoolClosedError, match="make a new one"):
        venv.reset()


def test_what_all_environments_share_can_be_asked() -> None:
    venv: Any = make_vec_env(DOORKEY, 3, 0, backend="envpool")
    assert venv.render_mode is None
    assert venv.get_attr("render_mode") == [None] * 3
    assert [spec.id for spec in venv.get_attr("spec", [0, 2])] == [DOORKEY] * 2
    assert venv.get_attr("action_space", 1) == [venv.action_space]
    assert venv.env_method("get_wrapper_attr", "max_steps") == [250] * 3
    assert venv.has_attr("spec")
    assert not venv.has_attr("grid")
    assert venv.env_is_wrapped(Monitor) == [True] * 3
    assert venv.env_is_wrapped(GridObservation, 0) == [False]
    with pytest.warns(UserWarning, match="cannot be rendered"):
        assert venv.get_images() == [None] * 3


@pytest.mark.parametrize("seeds", [[], [-1], [2**31]])
def test_seeds_are_checked(seeds: list[int]) -> None:
    with pytest.raises(SeedError, match="one seed an environment"):
        EnvPoolVecEnv(DOORKEY, seeds)


def test_ids_and_parts_are_checked() -> None:
    with pytest.raises(BackendError, match='choose the backend "minigrid"'):
        EnvPoolVecEnv("CartPole-v1", [0])
    with pytest.raises(ObservationPartsError, match="choose one or more"):
        EnvPoolVecEnv(DOORKEY, [0], parts=["depth"])


def test_the_level_that_hangs_is_left_to_minigrid() -> None:
    assert "BabyAI-Synth-v0" in pool_ids()
    assert "BabyAI-SynthS5R2-v0" not in pool_ids()


@pytest.mark.parametrize("backend", BACKENDS)
def test_stable_baselines3_trains_and_evaluates_on_it(backend: Any) -> None:
    venv: Any = make_vec_env("MiniGrid-GoToDoor-5x5-v0", 4, 0, backend=backend)
    model: Any = PPO("MultiInputPolicy", venv, n_steps=32, batch_size=64, n_epochs=1, seed=0)
    model.learn(256)
    assert model.num_timesteps == 256
    assert len(model.ep_info_buffer) > 4
    scores: Any = evaluate_policy(
        model, venv, n_eval_episodes=8, deterministic=False, return_episode_rewards=True
    )
    assert [len(kind) for kind in scores] == [8, 8]  # returns, lengths
    wrapped = VecNormalize(venv, norm_obs=False)
    wrapped.reset()
    assert wrapped.step(np.zeros(4, dtype=int))[1].shape == (4,)
