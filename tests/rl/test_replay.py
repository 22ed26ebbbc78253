"""An update sees what acting saw: replay, and the values that the end of a rollout rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.memories import MEMORIES, kernels
from relagent.rl import MemoryPPO

from .worlds import (
    ACTIONS,
    Watch,
    every_memory_in,
    last_rollout,
    same_weights,
    small_model,
    toys,
    weights,
    world,
)

every_memory = pytest.mark.parametrize("memory", MEMORIES)


# Replay = rollout.


def largest_deviation(model: MemoryPPO) -> float:
    """max |ratio - 1| over several layouts of minibatches, before any optimiser step."""
    rollout = last_rollout(model)
    model.policy.set_training_mode(True)
    deviations = []
    for n_batches in (1, 2, 3, rollout.n_envs):
        for batch in rollout.minibatches(n_batches, torch.Generator().manual_seed(n_batches)):
            values, log_prob, _ = model.policy.evaluate_actions(
                batch.observations, batch.actions, batch.start_state, batch.episode_starts
            )
            values, log_prob = values.detach(), log_prob.detach()
            deviations.append((log_prob - batch.old_log_prob).exp() - 1)
            deviations.append(values - batch.old_values)
    return max(float(deviation.abs().max()) for deviation in deviations)


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-10), (False, 1e-5)])
@every_memory_in("box", "grid", "discrete")
def test_before_the_update_every_ratio_is_one(
    memory: str, name: str, double: bool, tolerance: float
) -> None:
    """In the first rollout, and in later ones, which start in the middle of episodes."""
    model = small_model(world(name), memory, double)
    deviations, boundaries, carried = [], [], []

    def look(model: MemoryPPO) -> None:
        rollout = last_rollout(model)
        deviations.append(largest_deviation(model))
        boundaries.append(bool(rollout.episode_starts[1:].any()))
        continuing = ~rollout.episode_starts[0]
        carried.append(any(bool(part[continuing].any()) for part in rollout.start_state))

    before = weights(model)
    model.learn(3 * 12 * 4, callback=Watch(rollout_end=look))

    assert not same_weights(before, weights(model)), "nothing was learned in between"
    assert len(deviations) == 3 and max(deviations) <= tolerance
    assert all(boundaries), "no episode ended inside a rollout: the test shows too little"
    assert memory == "none" or any(carried[1:]), "no memory was carried over"


@every_memory
def test_the_pure_definition_replays_itself_too(memory: str) -> None:
    with kernels.disable():
        model = small_model(toys(), memory, double=True)
        deviations: list[float] = []
        watch = Watch(rollout_end=lambda model: deviations.append(largest_deviation(model)))
        model.learn(2 * 12 * 4, callback=watch)
    assert len(deviations) == 2 and max(deviations) <= 1e-10


def test_the_first_minibatch_of_an_update_clips_nothing() -> None:
    """What the update itself sees, in one epoch of one minibatch: no change of policy yet."""
    model = small_model(world("grid"), "rel", batch_size=12 * 4, n_epochs=1)
    model.learn(2 * 12 * 4)
    logged = model.logger.name_to_value
    assert logged["train/clip_fraction"] == 0
    assert abs(logged["train/approx_kl"]) <= 1e-6


# Bootstrap.


@every_memory_in("box", "dict")
def test_only_a_truncated_episode_is_continued_by_its_value(memory: str, name: str) -> None:
    """γ V(last observation, memory before its reset); the value is recomputed row by row here."""
    env = toys(4, name)
    model = small_model(env, memory, double=True, n_steps=40, gamma=0.9)
    steps: list[dict[str, Any]] = []

    def record(local: dict[str, Any]) -> None:
        steps.append({name: local[name] for name in ("rewards", "dones", "infos")})
        steps[-1]["rewards"] = steps[-1]["rewards"].copy()

    model.learn(40 * 4, callback=Watch(step=record, rollout_end=check_at_end(steps)))
    assert len(steps) == 40


def check_at_end(steps: list[dict[str, Any]]) -> Any:
    def check(model: MemoryPPO) -> None:
        rollout, policy = last_rollout(model), model.policy
        endings = {"terminated": 0, "truncated": 0}
        for e in range(rollout.n_envs):
            state = policy.initial_state(1)
            for t, step in enumerate(steps):
                observation = at(rollout.observations, t, e)
                start = torch.tensor([t == 0 or bool(steps[t - 1]["dones"][e])])
                with torch.no_grad():
                    _, state = policy.remember(observation, state, start)
                expected = float(step["rewards"][e])
                if step["dones"][e]:
                    info = step["infos"][e]
                    truncated = info["TimeLimit.truncated"]
                    endings["truncated" if truncated else "terminated"] += 1
                    if truncated:
                        last, _ = policy.obs_to_tensor(info["terminal_observation"])
                        with torch.no_grad():
                            value = policy.predict_values(last, state, torch.zeros(1).bool())
                        expected += model.gamma * float(value)
                # Worlds give rewards in single precision.
                assert abs(float(rollout.rewards[t, e]) - expected) <= 1e-6 * (1 + abs(expected))
        assert min(endings.values()) >= 3

    return check


def at(observations: Any, t: int, e: int) -> Any:
    """One observation [1, ...] of a rollout [T, E, ...]."""
    if isinstance(observations, dict):
        return {key: at(value, t, e) for key, value in observations.items()}
    return observations[t, e : e + 1]


def test_the_last_value_looks_ahead_of_the_rollout() -> None:
    """The value after the last step bootstraps the environments whose episode goes on."""
    model = small_model(toys(6), "rel", double=True, gae_lambda=1.0, gamma=0.9)
    after: list[Any] = []

    def check(model: MemoryPPO) -> None:
        rollout, policy = last_rollout(model), model.policy
        new_obs, dones = after[-1]
        assert model._last_state is not None
        with torch.no_grad():
            ahead = policy.predict_values(
                torch.as_tensor(new_obs), model._last_state, torch.as_tensor(dones)
            )
        expected = rollout.rewards[-1] + 0.9 * ahead * ~torch.as_tensor(dones)
        assert (rollout.returns[-1] - expected).abs().max() <= 1e-10
        assert 0 < dones.sum() < 6, "both kinds are needed: choose another number of steps"

    def keep(local: dict[str, Any]) -> None:
        after.append((local["new_obs"].copy(), local["dones"].copy()))

    model.learn(12 * 6, callback=Watch(step=keep, rollout_end=check))


# Worlds that reuse their arrays, and every kind of action.


class Reusing(VecEnvWrapper):
    """Write every step into the same arrays, as sb3's buffers, which copy, allow it."""

    def reset(self) -> VecEnvObs:
        self.arrays: list[np.ndarray] = [np.asarray(self.venv.reset()).copy()]
        return self.arrays[0]

    def step_wait(self) -> VecEnvStepReturn:
        *arrays, infos = self.venv.step_wait()
        if len(self.arrays) == 1:
            self.arrays += [np.empty_like(array) for array in arrays[1:]]
        for own, new in zip(self.arrays, arrays, strict=True):
            own[...] = new
        observations, rewards, dones = self.arrays
        return observations, rewards, dones, infos


def test_a_world_may_reuse_its_arrays() -> None:
    def train(env: VecEnv) -> dict[str, torch.Tensor]:
        return weights(small_model(env, "rel").learn(2 * 12 * 4))

    assert same_weights(train(toys()), train(Reusing(toys())))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_kind_of_action(action: str) -> None:
    """The world refuses whatever its action space does not contain."""
    env = toys(3, "box", action)
    model = small_model(env, "rel", double=True)
    deviations: list[float] = []
    before = weights(model)
    model.learn(
        2 * 12 * 3, callback=Watch(rollout_end=lambda m: deviations.append(largest_deviation(m)))
    )
    assert max(deviations) <= 1e-10
    assert not same_weights(before, weights(model))
    for deterministic in (True, False):
        actions, _ = model.predict(np.zeros((5, 3), np.float32), deterministic=deterministic)
        assert all(env.action_space.contains(one) for one in actions) and len(actions) == 5
        single, _ = model.predict(np.zeros(3, np.float32), deterministic=deterministic)
        assert env.action_space.contains(np.int64(single) if action == "discrete" else single)
