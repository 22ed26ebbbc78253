"""Episodes for the analysis are those of the evaluation; gradients of choices are the policy's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from relagent.analysis.episode import choice_gradients, play_episode
from relagent.analysis.gradients import gradient_norms
from relagent.envs import SeedError, UnsupportedSpaceError, make_env
from relagent.rl.checkpoint import load_policy
from relagent.rl.play import WorldMismatchError, play
from relagent.rl.policy import MemoryPolicy

WORLD = "MiniGrid-Empty-5x5-v0"


@pytest.fixture
def policy(agent_run: Callable[[str], Path]) -> MemoryPolicy:
    return load_policy(agent_run("rel")).policy


@pytest.mark.parametrize("greedy", [False, True])
def test_plays_the_evaluation_episodes(policy: MemoryPolicy, greedy: bool) -> None:
    expected = play(policy, WORLD, 3, deterministic=greedy)
    assert expected.successes is not None
    for number in range(3):
        episode = play_episode(policy, WORLD, number, greedy=greedy)
        assert len(episode.actions) == expected.lengths[number]
        assert episode.reward == expected.rewards[number]
        assert episode.success == expected.successes[number]


def test_keeps_what_the_agent_lived(policy: MemoryPolicy) -> None:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    episode = play_episode(policy, WORLD, 1, pictures=True)
    steps = len(episode.actions)
    assert episode.features.shape[:2] == (steps, 1)
    assert episode.features.dtype == torch.float64
    assert len(episode.pictures) == steps
    assert episode.pictures[0].ndim == 3
    assert episode.names[:3] == ("left", "right", "forward")
    assert not play_episode(policy, WORLD, 1).pictures
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert value.dtype == before[name].dtype


def test_gradients_of_choices_are_those_of_the_loss(policy: MemoryPolicy) -> None:
    episode = play_episode(policy, WORLD, 0)
    length = len(episode.actions)
    memory, x = episode.policy.memory, episode.features
    steps, norms = choice_gradients(episode, rows=length)
    assert steps == list(range(length))
    for step in (0, length // 2, length - 1):

        def log_probability(y: Tensor, step: int = step) -> Tensor:
            return episode.log_probabilities(y)[step]

        expected = gradient_norms(memory, x, log_probability)[: step + 1, 0]
        np.testing.assert_allclose(norms[step, : step + 1], expected.numpy(), rtol=1e-10)
        assert np.isnan(norms[step, step + 1 :]).all()
    last = gradient_norms(memory, x, episode.last_choice)[:, 0]
    np.testing.assert_allclose(norms[-1], last.numpy(), rtol=1e-10)


def test_a_long_episode_keeps_some_actions(policy: MemoryPolicy) -> None:
    episode = play_episode(policy, WORLD, 0)
    steps, norms = choice_gradients(episode, rows=3)
    assert len(steps) == len(norms) == min(3, len(episode.actions))
    assert steps[-1] == len(episode.actions) - 1
    assert steps == sorted(set(steps))


def test_log_probabilities_are_those_of_the_policy(policy: MemoryPolicy) -> None:
    episode = play_episode(policy, WORLD, 0)
    with torch.no_grad():
        outputs, _ = episode.policy.memory.unroll(episode.features, episode.policy.initial_state(1))
        logits = episode.policy.action_net(episode.policy.actor_layers(outputs[:, 0]))
        expected = logits.log_softmax(dim=1).gather(1, torch.tensor(episode.actions)[:, None])
        torch.testing.assert_close(episode.log_probabilities(outputs), expected[:, 0])


def test_a_world_without_a_time_limit_is_cut_off() -> None:
    world = make_env("CliffWalking-v1")
    policy = MemoryPolicy(
        world.observation_space, world.action_space, lambda _: 0.0, "lstm", hidden_size=4
    )
    episode = play_episode(policy, "CliffWalking-v1", greedy=True, max_steps=7)
    assert len(episode.actions) == 7


def test_a_world_that_observes_parts_of_its_own() -> None:
    def timed(**_: Any) -> gym.Env[Any, Any]:
        return gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"), flatten=False)

    name = "relagent-timed-v0"
    gym.register(name, timed)
    try:
        world = make_env(name)
        assert isinstance(world.observation_space, gym.spaces.Dict)
        policy = MemoryPolicy(
            world.observation_space, world.action_space, lambda _: 0.0, "rel", hidden_size=4
        )
        played = play(policy, name, 4)
        alone = [play_episode(policy, name, number) for number in range(4)]
    finally:
        del gym.registry[name]
    assert [len(episode.actions) for episode in alone] == played.lengths.tolist()
    assert [episode.reward for episode in alone] == played.rewards.tolist()


def test_impossible_requests_are_refused(policy: MemoryPolicy) -> None:
    with pytest.raises(SeedError):
        play_episode(policy, WORLD, -1)
    with pytest.raises(WorldMismatchError):
        play_episode(policy, "CartPole-v1")


def test_actions_that_cannot_be_told_apart_by_name() -> None:
    env = make_env("Pendulum-v1")
    policy = MemoryPolicy(env.observation_space, env.action_space, lambda _: 1e-3, hidden_size=8)
    with pytest.raises(UnsupportedSpaceError, match="only choices among Discrete"):
        play_episode(policy, "Pendulum-v1")
