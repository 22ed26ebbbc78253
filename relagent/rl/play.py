"""Play a trained agent, unchanged, in any world that it fits.

Scores are made on the Python package of the worlds, whatever they were trained on. Every episode
has a seed of its own for its layout and another one for the agent's choices, and the policy
computes in float64, so that an episode comes out the same whichever process or batch row plays it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relagent.envs import check_reset, evaluation_seeds, make_env
from relagent.envs.observations import ObservationPartsError
from relagent.errors import RelagentError
from relagent.memories import AnyState, Attention
from relagent.memories.attention import AttentiveMemory
from relagent.rl.checkpoint import in_words
from relagent.rl.choice import choose
from relagent.rl.episodes import MAX_STEPS, Job, Result, Row, parts_of, play_rows, stack
from relagent.rl.policy import MemoryPolicy
from relagent.rl.workers import play_in_processes

Precision = Literal["float64", "float32"]

ROWS = 64
"""Episodes that one process plays side by side."""


class WorldMismatchError(RelagentError):
    """A world whose observations or actions are not those that the agent was trained with."""


class EpisodeCountError(RelagentError):
    """A number of episodes, processes, batch rows or steps below one."""


@dataclass(frozen=True)
class Episodes:
    """What came of N episodes, in the order of their seeds.

    Attributes:
        rewards: float64 [N], the sum of each episode's rewards.
        lengths: int64 [N], steps.
        successes: bool [N], whether the world reported success at the end (``is_success``);
            ``None`` of a world that does not speak of it.
    """

    rewards: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None


def play(
    policy: MemoryPolicy,
    env_id: str,
    episodes: int,
    deterministic: bool = False,
    *,
    workers: int = 1,
    rows: int = ROWS,
    precision: Precision = "float64",
    device: str = "cpu",
    max_steps: int = MAX_STEPS,
) -> Episodes:
    """Play a policy in a world of the Python package; no global random stream is touched.

    Args:
        policy: it is copied and stays as it is.
        env_id: a world that fits the policy, see :func:`check_world`.
        episodes: how many; episode i has the seed ``evaluation_seeds(episodes)[i]``.
        deterministic: take the most probable action instead of sampling.
        workers: processes; with 1, this one. More need the usual ``if __name__ == "__main__":``
            in the script that calls.
        rows: episodes that each process plays side by side.
        precision: what the policy computes in. In float32, which is faster for memories of long
            episodes, rounding depends on which episodes share a batch, and now and then an action
            with it.
        device: where the policy computes.
        max_steps: where an episode is cut off in a world without a time limit of its own.

    Raises:
        WorldMismatchError: the world does not fit the policy.
        EpisodeCountError: a number below one.
        WorkerError: a process died.
    """
    job = Job(policy, env_id, episodes, deterministic, max_steps)
    return play_all([job], workers=workers, rows=rows, precision=precision, device=device)[0]


def play_all(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    rows: int = ROWS,
    precision: Precision = "float64",
    device: str = "cpu",
    on_result: Callable[[Result], None] | None = None,
) -> list[Episodes]:
    """:func:`play` several jobs with the same processes; ``on_result`` is told of each episode."""
    if workers < 1 or rows < 1 or any(min(job.episodes, job.max_steps) < 1 for job in jobs):
        raise EpisodeCountError(
            "episodes, workers, rows and max_steps must each be at least 1: give more"
        )
    for job in jobs:
        check_world(job.policy, job.env_id)
    if not jobs:
        return []
    jobs = _copies(jobs, precision)
    longest = max(job.episodes for job in jobs)
    rows = min(rows, -(-longest // workers))
    results: list[dict[int, Result]] = [{} for _ in jobs]
    played = (
        play_in_processes(jobs, workers, rows, device)
        if workers > 1
        else _play_here(jobs, rows, device)
    )
    with closing(played):  # an interrupt ends the processes now, not when somebody collects them
        for result in played:
            results[result.job][result.episode] = result
            if on_result is not None:
                on_result(result)
    return [_episodes([done[episode] for episode in sorted(done)]) for done in results]


def _episodes(results: Sequence[Result]) -> Episodes:
    # An episode that was cut off is silent, and so no success, where others speak of it.
    told = any(result.success is not None for result in results)
    return Episodes(
        np.array([result.reward for result in results]),
        np.array([result.length for result in results], dtype=np.int64),
        np.array([result.success for result in results], dtype=bool) if told else None,
    )


def begin_episode(
    policy: MemoryPolicy, env_id: str, number: int, max_steps: int = MAX_STEPS
) -> tuple[MemoryPolicy, Row]:
    """Begin an evaluation episode alone, to be looked into: the one that :func:`play` plays.

    Args:
        policy: it stays as it is.
        env_id: a world that fits it.
        number: of the episode, from 0.
        max_steps: see :func:`play`.

    Returns:
        A copy of the policy in float64, ready to act, and the world at its first observation.

    Raises:
        WorldMismatchError: the world does not fit the policy.
        SeedError: there is no episode of this number.
    """
    (seed,) = evaluation_seeds(1, number)
    check_world(policy, env_id)
    policy = _acting_copy(policy, "float64")
    row = Row(policy, env_id, max_steps)
    row.start(number, seed)
    return policy, row


class Choice(NamedTuple):
    """What an agent does at one step, and why."""

    features: Tensor
    """[1, F] what its memory reads."""
    look: Attention | None
    """What its memory looks at; ``None`` without attention."""
    action: int
    """What it is about to do."""
    state: AnyState
    """Of its memory, for the next step."""


def choose_next(policy: MemoryPolicy, row: Row, state: AnyState, *, greedy: bool) -> Choice:
    """Let an agent with Discrete actions choose in an episode of :func:`begin_episode`."""
    with torch.no_grad():
        features = policy.encode(stack([row.observation]))
        look = None
        if isinstance(policy.memory, AttentiveMemory):
            latent, state, look = policy.memory.attend(features, state)
        else:
            latent, state = policy.memory.step(features, state)
        chosen = choose(policy.distribution(latent), None if greedy else [row.generator])
    return Choice(features, look, int(chosen.item()), state)


def check_world(policy: MemoryPolicy, env_id: str) -> None:
    """Check that a policy can act in a world.

    Raises:
        WorldMismatchError: observations or actions are not those of its training.
        UnknownEnvironmentError: no registered environment has this id, or it cannot be begun.
    """
    try:
        env = make_env(env_id, parts_of(policy))
    except ObservationPartsError as error:
        raise WorldMismatchError(
            f"{env_id} is no MiniGrid or BabyAI world, but this agent was trained on one: choose "
            "such a world"
        ) from error
    check_reset(env_id, env)
    env.close()
    for name in ("observation_space", "action_space"):
        known, found = getattr(policy, name), getattr(env, name)
        if known != found:
            raise WorldMismatchError(
                f"the {name.replace('_', ' ')} of {env_id} does not fit: the agent was trained "
                f"with {in_words(known)}, this world has {in_words(found)}: choose a world of the "
                "same kind"
            )


def _copies(jobs: Sequence[Job], precision: Precision) -> list[Job]:
    """The jobs with copies of their policies, made for acting; what was shared stays shared."""
    copies: dict[int, MemoryPolicy] = {}
    for job in jobs:
        if id(job.policy) not in copies:
            copies[id(job.policy)] = _acting_copy(job.policy, precision)
    return [replace(job, policy=copies[id(job.policy)]) for job in jobs]


def _acting_copy(policy: MemoryPolicy, precision: Precision) -> MemoryPolicy:
    policy = copy.deepcopy(policy).cpu().to(getattr(torch, precision))
    policy.set_training_mode(False)
    return policy


def _play_here(jobs: Sequence[Job], rows: int, device: str) -> Generator[Result]:
    for number, job in enumerate(jobs):
        yield from play_rows(number, job, iter(range(job.episodes)), rows, device)
