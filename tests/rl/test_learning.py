"""What training counts, what its seed decides, what evaluation leaves alone, how it goes on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy

from relagent.memories import MEMORIES, map_state
from relagent.memories.attention import AttentiveMemory
from relagent.rl import MemoryPPO

from .worlds import (
    Watch,
    every_memory_in,
    last_rollout,
    same_weights,
    small_model,
    toys,
    weights,
    world,
)

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


@every_memory_in("box", "grid")
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


@every_memory_in("box", "grid")
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


@pytest.mark.parametrize("memory", MEMORIES)
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
