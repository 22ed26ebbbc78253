"""What must hold of training, for every memory: replay, bootstrap, counts, seeds, evaluation."""

from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from minigrid.wrappers import ImgObsWrapper
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.envs import UnsupportedSpaceError
from relagent.memories import MEMORIES, kernels, map_state
from relagent.memories.attention import AttentiveMemory
from relagent.rl import MemoryPPO
from relagent.rl.acting import ModelOptionError
from relagent.rl.encoder import EncoderError, GridEncoder
from relagent.rl.ppo import TrainingDivergedError
from relagent.rl.rollout import Rollout

from .worlds import (
    ACTIONS,
    Watch,
    same_weights,
    small_model,
    toys,
    weights,
    world,
)

every_memory = pytest.mark.parametrize("memory", MEMORIES)


def last_rollout(model: MemoryPPO) -> Rollout:
    assert model.rollout is not None
    return model.rollout


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
@pytest.mark.parametrize("name", ["grid", "box", "discrete"])
@every_memory
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


@pytest.mark.parametrize("name", ["box", "dict"])
@every_memory
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


# Counts.


def test_every_step_of_the_world_counts_once() -> None:
    env = toys(5)
    model = small_model(env, "rel", n_steps=7, gamma=0.0, gae_lambda=0.0)
    stored: list[torch.Tensor] = []
    ended = 0

    def count(local: dict[str, Any]) -> None:
        nonlocal ended
        ended += int(local["dones"].sum())

    def keep(model: MemoryPPO) -> None:
        rollout = last_rollout(model)
        assert rollout.rewards.shape == rollout.advantages.shape == (7, 5)
        stored.append(rollout.rewards)

    model.learn(3 * 7 * 5, callback=Watch(step=count, rollout_end=keep))

    taken = [env.envs[i].unwrapped.rewards for i in range(5)]  # type: ignore[attr-defined]  # Toy
    assert model.num_timesteps == 3 * 7 * 5 == sum(map(len, taken))
    # γ = 0: no bootstrap, so that what is stored are the world's own rewards, in order.
    expected = torch.tensor(taken).T
    assert (torch.cat(stored) - expected).abs().max() <= 1e-6
    assert ended > 10
    assert model._n_updates == 3 * 2


def test_reported_episodes_are_the_worlds_own() -> None:
    env = world("grid", 8)
    model = small_model(env, "lstm", stats_window_size=10_000)
    returns, lengths, running = [], [], np.zeros((2, 8))

    def follow(local: dict[str, Any]) -> None:
        running[0] += local["rewards"]
        running[1] += 1
        for i in np.flatnonzero(local["dones"]):
            returns.append(running[0, i])
            lengths.append(running[1, i])
            running[:, i] = 0

    model.learn(4 * 12 * 8, callback=Watch(step=follow))

    assert model.ep_info_buffer is not None and len(lengths) > 20
    assert [info["l"] for info in model.ep_info_buffer] == lengths
    assert np.allclose([info["r"] for info in model.ep_info_buffer], returns, atol=1e-5)


@pytest.mark.parametrize(
    ("n_envs", "batch_size", "expected"),
    [(8, 24, [2, 2, 2, 2]), (5, 24, [2, 2, 1]), (4, 1, [1] * 4), (3, 10_000, [3])],
)
def test_a_minibatch_is_never_larger_than_asked_for(
    n_envs: int, batch_size: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole environments of 12 steps each, at least one."""
    sizes: list[int] = []
    original = MemoryPPO._loss

    def note(self: MemoryPPO, batch: Any, *rest: Any) -> Any:
        sizes.append(batch.actions.shape[1])
        return original(self, batch, *rest)

    monkeypatch.setattr(MemoryPPO, "_loss", note)
    small_model(toys(n_envs), "none", batch_size=batch_size, n_epochs=1).learn(12 * n_envs)
    assert sizes == expected


# Seeds.


def run(memory: str, name: str, seed: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    rewards: list[float] = []
    model = small_model(world(name), memory, seed=seed)
    model.learn(3 * 12 * 4, callback=Watch(step=lambda l: rewards.extend(l["rewards"].tolist())))
    return weights(model), rewards


@pytest.mark.parametrize("name", ["grid", "box"])
@every_memory
def test_the_seed_decides_the_run(memory: str, name: str) -> None:
    first, again, other = run(memory, name, 1), run(memory, name, 1), run(memory, name, 2)
    assert same_weights(first[0], again[0]) and first[1] == again[1]
    assert not same_weights(first[0], other[0])
    assert name == "grid" or first[1] != other[1]


def test_the_grid_of_another_seed_is_another() -> None:
    def first_view(seed: int) -> np.ndarray:
        seen: list[np.ndarray] = []

        def keep(local: dict[str, Any]) -> bool:
            seen.append(local["observations"]["image"].numpy())
            return False

        small_model(world("grid", 8), "none", seed=seed).learn(8, callback=Watch(step=keep))
        return seen[0]

    assert np.array_equal(first_view(1), first_view(1))
    assert not np.array_equal(first_view(1), first_view(2))


# Evaluation changes nothing.


def streams() -> tuple[Any, ...]:
    torch_state = tuple(torch.get_rng_state().tolist())
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # the global stream is what is asked
    return torch_state, name, tuple(np.asarray(keys).tolist()), *rest, random.getstate()


def evaluate(model: MemoryPPO, name: str) -> None:
    before = streams()
    evaluate_policy(model, world(name, 1), n_eval_episodes=1, warn=False)
    assert model.env is not None and model._last_obs is not None
    _, state = model.predict(model._last_obs, deterministic=True)
    model.predict(model._last_obs, state, np.ones(4, dtype=bool), deterministic=True)
    rollout = model.rollout
    if rollout is not None and isinstance(model.policy.memory, AttentiveMemory):
        model.policy.trace(rollout.observations, rollout.start_state, rollout.episode_starts)
    assert streams() == before


@pytest.mark.parametrize("name", ["grid", "box"])
@every_memory
def test_evaluation_leaves_training_alone(memory: str, name: str) -> None:
    def train(evaluating: bool) -> MemoryPPO:
        model = small_model(world(name), memory)
        callback = Watch(
            step=lambda _: evaluate(model, name) if model.num_timesteps == 68 else None,
            rollout_end=lambda model: evaluate(model, name) if model.num_timesteps < 100 else None,
        )
        return model.learn(3 * 12 * 4, callback=callback if evaluating else None)

    plain, evaluated = train(False), train(True)

    assert same_weights(weights(plain), weights(evaluated))
    moments = [m.policy.optimizer.state_dict()["state"] for m in (plain, evaluated)]
    for one, two in zip(moments[0].values(), moments[1].values(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert plain._last_state is not None and evaluated._last_state is not None
    for part, other in zip(plain._last_state, evaluated._last_state, strict=True):
        assert torch.equal(part, other)


# Going on.


@every_memory
def test_training_goes_on_where_it_stopped(memory: str) -> None:
    """Two calls of ``learn`` without a reset are one: episodes and memories are carried over."""
    whole = small_model(toys(), memory).learn(4 * 12 * 4)
    parts = small_model(toys(), memory).learn(2 * 12 * 4)
    parts.learn(2 * 12 * 4, reset_num_timesteps=False)
    assert parts.num_timesteps == whole.num_timesteps
    # The learning rate is constant, so that the progress that schedules see does not matter.
    assert same_weights(weights(whole), weights(parts))


def test_a_stop_within_a_rollout_loses_no_step() -> None:
    """The next rollout starts with the observation that the world gave last."""
    model = small_model(toys(), "rel")
    last: list[Any] = []

    def stop(local: dict[str, Any]) -> bool:
        last[:] = [local["new_obs"].copy(), local["dones"].copy()]
        return not (len(last[1]) and local["dones"].any())

    model.learn(12 * 4, callback=Watch(step=stop))
    assert isinstance(model._last_obs, np.ndarray) and model._last_episode_starts is not None
    assert last[1].any() and np.array_equal(model._last_obs, last[0])
    assert np.array_equal(model._last_episode_starts, last[1])


def test_a_new_learn_starts_new_episodes() -> None:
    model = small_model(toys(), "rel")
    model.learn(12 * 4)
    assert model._last_state is not None
    model._last_state = map_state(
        lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t, model._last_state
    )
    starts: list[torch.Tensor] = []
    model.learn(
        12 * 4, callback=Watch(rollout_end=lambda m: starts.append(last_rollout(m).episode_starts))
    )
    assert starts[0][0].all()
    assert all(tensor.isfinite().all() for tensor in weights(model).values())


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


# Errors of users.


class Bad(VecEnvWrapper):
    """Rewards of any kind: of one step not a number, or whole ones."""

    def __init__(self, venv: VecEnv, kind: str) -> None:
        super().__init__(venv)
        self.kind = kind

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        rewards = rewards.astype(np.int64) if self.kind == "whole" else rewards * np.nan
        return observations, rewards, dones, infos


def test_rewards_that_are_no_numbers_are_not_learned_from() -> None:
    model = small_model(Bad(toys(), "not a number"), "rel")
    with pytest.raises(TrainingDivergedError, match=r"diverged by step 48.*learning rate"):
        model.learn(2 * 12 * 4)


def test_rewards_may_be_whole_numbers() -> None:
    model = small_model(Bad(toys(), "whole"), "rel")
    model.learn(4 * 12 * 4)
    assert last_rollout(model).rewards.abs().sum() > 0  # of truncated episodes: values


@pytest.mark.parametrize(
    ("name", "value"), [("gamma", 2), ("gae_lambda", -0.1), ("ent_coef", float("nan"))]
)
def test_impossible_shares_are_refused(name: str, value: float) -> None:
    with pytest.raises(ModelOptionError, match=f"^{name}={value} cannot work: use"):
        small_model(toys(), "rel", False, 0, **{name: value})


def test_a_world_as_minigrid_makes_it_is_refused_with_advice() -> None:
    world = gym.make("MiniGrid-DoorKey-5x5-v0")
    with pytest.raises(UnsupportedSpaceError, match=r"DoorKey.*relagent\.envs\.make_env"):
        MemoryPPO("RelLstmPolicy", world)
    with pytest.raises(EncoderError, match=r"\(3, 7, 7\).*relagent\.envs\.make_env"):
        MemoryPPO("RelLstmPolicy", ImgObsWrapper(world))


def test_the_id_of_a_world_is_enough() -> None:
    model = MemoryPPO("LstmPolicy", "MiniGrid-Empty-5x5-v0", n_steps=8, seed=0)
    model.learn(16)
    assert isinstance(model.policy.features_extractor, GridEncoder)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("n_steps", 0), ("n_epochs", -1)])
def test_impossible_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ModelOptionError, match=f"^{name}={value} .*at least 1") as error:
        small_model(toys(), "rel", False, 0, **{name: value})
    assert "\n" not in str(error.value)


def test_an_unknown_policy_is_named_with_those_that_exist() -> None:
    with pytest.raises(ModelOptionError) as error:
        MemoryPPO("RelLstmPolcy", toys())
    message = str(error.value)
    assert "'RelLstmPolcy'" in message and "did you mean RelLstmPolicy?" in message
    assert all(name in message for name in MemoryPPO.policy_aliases)
    assert "\n" not in message
