"""Episodes of a trained agent in one world, several side by side in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gymnasium import spaces

from relagent.envs import episode_limit, evaluation_seeds, make_env
from relagent.envs.view import hasten_view
from relagent.memories import kernels, take_rows
from relagent.rl.choice import choose
from relagent.rl.encoder import is_grid_space
from relagent.rl.policy import MemoryPolicy

MAX_STEPS = 1000
"""Where an episode is cut off that no time limit ends."""


@dataclass(frozen=True)
class Job:
    """A policy, a world and how it is to be played there.

    Attributes:
        policy: it is copied and stays as it is.
        env_id: the world.
        episodes: how many; episode i has the seed ``evaluation_seeds(episodes)[i]``.
        deterministic: take the most probable action instead of sampling.
        max_steps: where an episode is cut off in a world without a time limit of its own.
    """

    policy: MemoryPolicy
    env_id: str
    episodes: int
    deterministic: bool
    max_steps: int = MAX_STEPS


class Result(NamedTuple):
    """The end of one episode."""

    job: int
    episode: int
    reward: float
    length: int
    success: bool | None


def parts_of(policy: MemoryPolicy) -> tuple[str, ...] | None:
    """The parts that the agent's observations were made of, or None outside grid worlds."""
    space = policy.observation_space
    return tuple(cast(spaces.Dict, space).spaces) if is_grid_space(space) else None


class Row:
    """An environment, and the evaluation episode that it is in.

    Attributes:
        episode: its number.
        observation: what the agent is to act on next.
        generator: the random stream of the agent's choices.
        gain: the reward of the last step.
        reward: the sum of all of them.
        length: steps so far.
        terminated: whether the world has ended it.
        success: whether the world reported success; ``None`` if it did not speak of it.
    """

    def __init__(self, policy: MemoryPolicy, env_id: str, max_steps: int) -> None:
        self.env = make_env(env_id, parts_of(policy))
        self._most = max_steps if episode_limit(self.env) is None else None

    def start(self, episode: int, seed: int) -> None:
        """Begin an episode; its seed decides the layout and the choices."""
        self.episode = episode
        # The environment's own generator is made from the seed alone: this one must differ.
        self.generator = np.random.default_rng((seed, 1))
        self.observation, _ = self.env.reset(seed=seed)
        self.reward, self.gain, self.length = 0.0, 0.0, 0
        self.terminated = False
        self.success: bool | None = None

    def step(self, action: Any) -> bool:
        """Act, and return whether the episode is over."""
        self.observation, reward, self.terminated, truncated, info = self.env.step(action)
        self.gain = float(reward)
        self.reward += self.gain
        self.length += 1
        self.success = bool(info["is_success"]) if "is_success" in info else None
        return self.terminated or truncated or self.length == self._most


def play_rows(
    number: int, job: Job, episodes: Iterator[int], rows: int, device: str
) -> Iterator[Result]:
    """Play a job's episodes, ``rows`` at a time: where one ends, the next one starts."""
    policy = job.policy.to(device)
    seeds = evaluation_seeds(job.episodes)
    table: list[Row] = []
    # Not zip(range(rows), episodes): it would take one episode too many from a shared counter.
    while len(table) < rows and (episode := next(episodes, None)) is not None:
        row = Row(policy, job.env_id, job.max_steps)
        hasten_view(row.env)
        row.start(episode, seeds[episode])
        table.append(row)
    state = policy.initial_state(len(table))
    known: dict[Any, Any] = {}
    while table:
        with torch.no_grad(), kernels.constant_weights(known):
            observations = stack([row.observation for row in table], device)
            starts = torch.tensor([row.length == 0 for row in table], device=device)
            latent, state = policy.remember(observations, state, starts)
            streams = None if job.deterministic else [row.generator for row in table]
            actions = policy.to_env(choose(policy.distribution(latent), streams))
        alive = []
        for i, row in enumerate(table):
            if row.step(actions[i]):
                yield Result(number, row.episode, row.reward, row.length, row.success)
                following = next(episodes, None)
                if following is None:
                    row.env.close()
                    continue
                row.start(following, seeds[following])
            alive.append(i)
        if len(alive) < len(table):
            table = [table[i] for i in alive]
            state = take_rows(state, torch.tensor(alive, dtype=torch.int64, device=device))


def stack(observations: Sequence[Any], device: str = "cpu") -> Any:
    """Stack observations of single worlds to a batch of tensors [B, ...], part by part."""
    if isinstance(observations[0], dict):
        return {part: stack([o[part] for o in observations], device) for part in observations[0]}
    return torch.as_tensor(np.stack(observations), device=device)
