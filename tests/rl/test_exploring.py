"""Random openings: how many, what reaches the world, and that nothing is learned from them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.rl.exploring import ExploringStarts, ExploringStartsError
from relagent.rl.ppo import MemoryPPO

from .worlds import Watch, small_model, weights, world


def test_half_of_the_episodes_open_with_a_uniform_number_of_actions() -> None:
    torch.manual_seed(0)
    starts = ExploringStarts(4, spaces.Discrete(3))
    starts.restart(8000)
    counts = torch.bincount(starts.left + 1, minlength=6).tolist()
    assert counts[0] == pytest.approx(4000, abs=4 * 2000**0.5)
    assert counts[1] == 0
    assert counts[2:] == [pytest.approx(1000, abs=4 * 875**0.5)] * 4


@given(most=st.integers(0, 5), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_an_opening_is_followed_by_own_actions_until_the_episode_ends(most: int, seed: int) -> None:
    torch.manual_seed(seed)
    starts = ExploringStarts(most, spaces.Discrete(3))
    starts.restart(20)
    for _ in range(2):
        planned = starts.left.clone()
        assert planned.max() <= most and torch.equal(starts.own, planned < 0)
        for t in range(7):
            chosen = torch.full((20,), 9)
            taken, own = starts.open(chosen)
            assert torch.equal(own, planned <= t)
            assert torch.equal(taken == 9, own)
            assert torch.equal(starts.own, planned < 0)
        starts.end(torch.ones(20).bool())


def test_an_end_concerns_its_own_environment_alone() -> None:
    starts = ExploringStarts(50, spaces.Discrete(3))
    starts.restart(40)
    before = starts.left.clone()
    dones = torch.arange(40) < 20
    starts.end(dones)
    assert torch.equal(starts.left[20:], before[20:])
    assert not torch.equal(starts.left[:20], before[:20])


def test_the_world_gets_the_opening_and_only_other_episodes_are_counted() -> None:
    model = small_model(world("grid", 6), "rel", exploring_starts=4, stats_window_size=10_000)
    sent: list[np.ndarray] = []
    episodes, counted = 0, 0

    def follow(local: dict[str, Any]) -> None:
        nonlocal episodes, counted
        sent.append(local["actions"].numpy().copy())
        episodes += int(local["dones"].sum())
        counted += int((local["dones"] & local["played"]).sum())

    stored: list[torch.Tensor] = []
    owned: list[torch.Tensor] = []

    def keep(model: Any) -> None:
        stored.append(model.rollout.actions)
        owned.append(model.rollout.own)

    model.learn(4 * 12 * 6, callback=Watch(step=follow, rollout_end=keep))
    assert np.array_equal(torch.cat(stored).numpy(), np.stack(sent))
    assert 0.1 < torch.cat(owned).float().mean() < 0.9
    assert 0 < counted < episodes
    assert model.ep_info_buffer is not None and len(model.ep_info_buffer) == counted


class OwnBuffer(VecEnvWrapper):
    """Returns one and the same array from every reset."""

    def reset(self) -> VecEnvObs:
        observations: Any = self.venv.reset()
        self.buffer = getattr(self, "buffer", observations)
        self.buffer[:] = observations
        return cast(VecEnvObs, self.buffer)

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()


def test_every_reset_begins_new_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(OwnBuffer(world("box")), "rel")
    begun: list[Any] = []
    begin = model.begin_episodes

    def counted(observations: Any) -> None:
        begun.append(observations)
        begin(observations)

    monkeypatch.setattr(model, "begin_episodes", counted)
    model.learn(48)
    model.learn(48, reset_num_timesteps=False)
    assert len(begun) == 1
    model._last_obs = cast(OwnBuffer, model.env).buffer  # as after a reset alone
    model.learn(48)
    assert len(begun) == 2


def test_nothing_is_learned_from_an_opening() -> None:
    """Whatever the opening's advantages and returns were, the gradient is the same."""
    model = small_model(world("grid", 6), "rel", double=True, exploring_starts=8).learn(12 * 6)
    rollout = model.rollout
    assert rollout is not None
    batch = rollout.take(torch.arange(6))
    assert 0 < batch.own.sum() < batch.own.numel()

    def gradients(spoiled: Any) -> list[torch.Tensor]:
        model.policy.zero_grad()
        model._loss(spoiled, 0.2, None)[0].backward()
        return [p.grad.clone() for p in model.policy.parameters() if p.grad is not None]

    noise = torch.where(batch.own, 0.0, 100.0)
    spoiled = batch._replace(
        advantages=batch.advantages + noise,
        returns=batch.returns - noise,
        old_log_prob=batch.old_log_prob + noise / 100,
    )
    assert all(map(torch.equal, gradients(batch), gradients(spoiled)))


def test_no_statistic_of_an_update_knows_of_an_opening() -> None:
    def trained(spoil: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        logged: dict[str, Any] = {}

        def end(model: MemoryPPO) -> None:
            rollout = model.rollout
            assert rollout is not None
            assert 0 < rollout.own.sum() < rollout.own.numel()
            if spoil:
                for part in (rollout.advantages, rollout.returns, rollout.values):
                    part[~rollout.own] += 100

        model = small_model(
            world("grid", 6), "rel", double=True, exploring_starts=8, normalize_advantage=True
        )
        model.learn(12 * 6, callback=Watch(rollout_end=end))
        logged |= model.logger.name_to_value
        return weights(model), {n: v for n, v in logged.items() if n.startswith("train/")}

    clean, spoilt = trained(False), trained(True)
    assert all(torch.equal(clean[0][name], spoilt[0][name]) for name in clean[0])
    assert len(clean[1]) > 5 and clean[1] == spoilt[1]


def test_an_update_of_openings_alone_learns_nothing_bad() -> None:
    def end(model: MemoryPPO) -> None:
        assert model.rollout is not None
        model.rollout.own[:] = False

    model = small_model(world("grid", 6), "rel", exploring_starts=8, normalize_advantage=True)
    model.learn(12 * 6, callback=Watch(rollout_end=end))
    assert all(part.isfinite().all() for part in weights(model).values())


def test_without_openings_no_random_number_is_drawn() -> None:
    starts = ExploringStarts(0, spaces.Box(0, 1, (2,)))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    starts.restart(3)
    actions = torch.rand(3, 2, generator=torch.Generator())
    taken, own = starts.open(actions)
    starts.end(torch.ones(3).bool())
    assert torch.equal(taken, actions) and own.all() and starts.own.all()
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_openings_are_refused() -> None:
    number: Any
    for number in (-1, 2.5):
        with pytest.raises(ExploringStartsError, match="use a whole number, 0 or more"):
            ExploringStarts(number, spaces.Discrete(2))
    with pytest.raises(ExploringStartsError, match="need Discrete actions; use 0"):
        ExploringStarts(1, spaces.Box(0, 1, (2,)))
