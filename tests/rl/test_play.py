"""An episode comes out the same wherever it is played, and playing leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from relagent.envs import evaluation_seeds, make_env
from relagent.envs.make import UnknownEnvironmentError
from relagent.rl.episodes import Job
from relagent.rl.play import (
    EpisodeCountError,
    Episodes,
    WorldMismatchError,
    play,
    play_all,
)
from relagent.rl.policy import MemoryPolicy
from relagent.rl.workers import WorkerError
from relagent.runs.random_states import random_states

WORLD = "MiniGrid-GoToDoor-5x5-v0"


pytestmark = pytest.mark.usefixtures("no_kernels")


def make_policy(memory: str = "rel", world: str = WORLD, seed: int = 0) -> MemoryPolicy:
    """A policy with random weights that cares about what it sees and remembers."""
    env = make_env(world)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = MemoryPolicy(
            env.observation_space, env.action_space, lambda _: 1e-3, memory, hidden_size=16
        )
    with torch.no_grad():
        policy.action_net.weight.mul_(150)
    return policy


def equal(left: Episodes, right: Episodes) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("rewards", "lengths", "successes")
    )


def play_literally(
    policy: MemoryPolicy, world: str, episodes: int, deterministic: bool
) -> Episodes:
    """One environment, one episode after the other, a new memory for each."""
    policy = policy.double()
    rewards, lengths, successes = [], [], []
    for seed in evaluation_seeds(episodes):
        env = make_env(world)
        generator = np.random.default_rng((seed, 1))
        observation, _ = env.reset(seed=seed)
        state = policy.initial_state(1)
        total, steps, over = 0.0, 0, False
        while not over:
            batch = {part: torch.as_tensor(value)[None] for part, value in observation.items()}
            latent, state = policy.remember(batch, state, torch.tensor([False]))
            categorical: Any = policy.distribution(latent).distribution
            probabilities = categorical.probs[0].detach().numpy()
            action = int(probabilities.argmax())
            if not deterministic:
                draw = generator.random()
                action = next(a for a in range(7) if draw < probabilities[: a + 1].sum())
            observation, reward, terminated, truncated, info = env.step(action)
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        rewards.append(total)
        lengths.append(steps)
        successes.append(info["is_success"])
    return Episodes(np.array(rewards), np.array(lengths), np.array(successes))


@pytest.mark.parametrize("memory", ["rel", "mem", "lstm"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_side_by_side_is_one_after_the_other(memory: str, deterministic: bool) -> None:
    policy = make_policy(memory)
    expected = play_literally(make_policy(memory), WORLD, 6, deterministic)
    for rows in (1, 4):
        assert equal(play(policy, WORLD, 6, deterministic, rows=rows), expected)
    if not deterministic:
        assert len(set(expected.lengths.tolist())) > 2  # the comparison sees differences


def test_processes_do_not_change_an_episode() -> None:
    jobs = [
        Job(make_policy(), WORLD, 9, False),
        Job(make_policy(), "MiniGrid-GoToDoor-6x6-v0", 5, True),
        Job(make_policy("lstm"), WORLD, 7, False),
    ]
    told: list[tuple[int, int]] = []
    here = play_all(jobs, rows=5)
    there = play_all(jobs, workers=2, rows=2, on_result=lambda result: told.append(result[:2]))
    assert all(equal(*pair) for pair in zip(here, there, strict=True))
    assert sorted(told) == [(j, e) for j, job in enumerate(jobs) for e in range(job.episodes)]


def test_more_episodes_begin_with_the_fewer() -> None:
    few, many = (play(make_policy(), WORLD, n, rows=3) for n in (4, 9))
    assert np.array_equal(few.rewards, many.rewards[:4])
    assert np.array_equal(few.lengths, many.lengths[:4])


def test_nothing_outside_is_touched() -> None:
    policy = make_policy()
    policy.set_training_mode(True)
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    before = random_states()
    play(policy, WORLD, 3)
    after = random_states()
    assert after["python"] == before["python"]
    np.testing.assert_equal(after["numpy"], before["numpy"])
    assert torch.equal(after["torch"], before["torch"])
    assert policy.training
    for name, value in policy.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])


def test_float32_is_close_to_float64() -> None:
    # Rounding flips an action less than once in 10,000 steps; these are some hundreds.
    policy = make_policy()
    assert equal(play(policy, WORLD, 6), play(policy, WORLD, 6, precision="float32"))


def test_an_agent_whose_actions_are_numbers() -> None:
    policy = make_policy("lstm", "Pendulum-v1")
    alone, together = (play(policy, "Pendulum-v1", 3, rows=rows) for rows in (1, 3))
    assert np.array_equal(alone.rewards, together.rewards)
    assert list(alone.lengths) == [200, 200, 200]
    greedy = play(policy, "Pendulum-v1", 3, deterministic=True)
    assert not np.allclose(greedy.rewards, alone.rewards, rtol=0.05)


def test_an_agent_of_another_kind_of_world() -> None:
    policy = make_policy("lstm", "CartPole-v1")
    episodes = play(policy, "CartPole-v1", 5, rows=2)
    assert np.array_equal(episodes.rewards, episodes.lengths)  # CartPole pays 1 for each step
    assert episodes.successes is None  # and speaks of no success
    with pytest.raises(WorldMismatchError, match="observation space"):
        play(policy, WORLD, 1)


def test_a_world_without_a_time_limit_is_cut_off() -> None:
    policy = make_policy("none", "CliffWalking-v1")  # a greedy one that walks in circles
    assert play(policy, "CliffWalking-v1", 3, True, max_steps=7).lengths.tolist() == [7, 7, 7]
    limited = make_policy("lstm", "CartPole-v1")
    assert equal(
        play(limited, "CartPole-v1", 3, True), play(limited, "CartPole-v1", 3, True, max_steps=1)
    )


@pytest.mark.parametrize(
    ("world", "error"),
    [
        ("CartPole-v1", WorldMismatchError),
        ("MiniGrid-Dynamic-Obstacles-5x5-v0", WorldMismatchError),
        ("MiniGrid-GoToDor-5x5-v0", UnknownEnvironmentError),
    ],
)
def test_worlds_that_do_not_fit(world: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        play(make_policy(), world, 1)


def test_a_grid_is_told_without_the_bounds_of_its_cells() -> None:
    with pytest.raises(WorldMismatchError, match="the observation space of MiniGrid") as told:
        play(make_policy("lstm", "CartPole-v1"), WORLD, 1)
    assert "image: Box((7, 7, 3), uint8)" in str(told.value)
    assert "\n" not in str(told.value)


def test_what_cannot_be_played() -> None:
    for counts in ({"episodes": 0}, {"workers": 0}, {"rows": 0}, {"max_steps": 0}):
        with pytest.raises(EpisodeCountError):
            play(make_policy(), WORLD, **{"episodes": 1, **counts})  # type: ignore[arg-type]  # ints all


def test_a_process_that_fails_is_an_error_and_ends_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Known to this process only, so the others cannot make it.
    gym.register("OnlyHere-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    policy = make_policy("lstm", "CartPole-v1")
    with pytest.raises(WorkerError, match="code 1: its error stands above"):
        play(policy, "OnlyHere-v0", 4, workers=2)
    assert "unknown environment 'OnlyHere-v0'" in capfd.readouterr().err


def test_a_module_makes_all_of_its_worlds_known_to_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two_worlds.py").write_text(
        "import time\n"
        "import gymnasium as gym\n"
        "from relagent.envs.cue import Cue\n"
        "class Slow(Cue):\n"
        "    def reset(self, **options):\n"
        "        time.sleep(0.4)  # so that the other process comes in time for an episode\n"
        "        return super().reset(**options)\n"
        "for name in ('NamedWithModule-v0', 'NamedAlone-v0'):\n"
        "    gym.register(name, Slow, max_episode_steps=9, kwargs={'delay': 2})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    policy = make_policy("lstm", "two_worlds:NamedWithModule-v0")
    # One process plays none of the first world's episodes, of which there is one.
    jobs = [
        Job(policy, "two_worlds:NamedWithModule-v0", 1, False),
        Job(policy, "NamedAlone-v0", 15, False),
    ]
    first, second = play_all(jobs, workers=2, rows=1)
    assert (len(first.rewards), len(second.rewards)) == (1, 15)
