"""Play a trained agent, unchanged, in any world that it fits.

Scores are made on the Python package of the worlds, whatever they were trained on. Every episode
has a seed of its own for its layout and another one for the agent's choices, and the policy
computes in float64, so that an episode comes out the same whichever process or batch row plays it.
"""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from relagent.envs import evaluation_seeds, make_env
from relagent.envs.make import UnsupportedSpaceError
from relagent.envs.observations import ObservationPartsError
from relagent.envs.view import hasten_view
from relagent.errors import RelagentError
from relagent.memories import kernels, take_rows
from relagent.rl.encoder import is_grid_space
from relagent.rl.policy import MemoryPolicy

Precision = Literal["float64", "float32"]

ROWS = 64
"""Episodes that one process plays side by side."""


class WorldMismatchError(RelagentError):
    """A world whose observations or actions are not those that the agent was trained with."""


class EpisodeCountError(RelagentError):
    """A number of episodes, processes or batch rows below one."""


class WorkerError(RelagentError):
    """A process that played episodes has ended before its work was done."""

    def __init__(self, code: int | None) -> None:
        killed = code is None or code < 0
        super().__init__(
            f"a process that played episodes ended with code {code}: "
            + ("maybe memory was short, try fewer workers" if killed else "its error stands above")
        )


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


@dataclass(frozen=True)
class Job:
    """A policy, a world and how it is to be played there.

    Attributes:
        policy: it is copied and stays as it is.
        env_id: the world.
        episodes: how many; episode i has the seed ``evaluation_seeds(episodes)[i]``.
        deterministic: take the most probable action instead of sampling.
    """

    policy: MemoryPolicy
    env_id: str
    episodes: int
    deterministic: bool


class Result(NamedTuple):
    """The end of one episode."""

    job: int
    episode: int
    reward: float
    length: int
    success: bool | None


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
) -> Episodes:
    """Play a policy in a world of the Python package; no global random stream is touched.

    Args:
        policy: with Discrete actions; it is copied and stays as it is.
        env_id: a world that fits the policy, see :func:`check_world`.
        episodes: how many; episode i has the seed ``evaluation_seeds(episodes)[i]``.
        deterministic: take the most probable action instead of sampling.
        workers: processes; with 1, this one. More need the usual ``if __name__ == "__main__":``
            in the script that calls.
        rows: episodes that each process plays side by side.
        precision: what a policy of grid worlds computes in. In float32, which is faster for
            memories of long episodes, rounding depends on which episodes share a batch, and now
            and then an action with it.
        device: where the policy computes.

    Raises:
        WorldMismatchError, UnsupportedSpaceError: the world does not fit the policy.
        EpisodeCountError: a number below one.
        WorkerError: a process died.
    """
    job = Job(policy, env_id, episodes, deterministic)
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
    if workers < 1 or rows < 1 or any(job.episodes < 1 for job in jobs):
        raise EpisodeCountError("episodes, workers and rows must each be at least 1: give more")
    for job in jobs:
        check_world(job.policy, job.env_id)
    if not jobs:
        return []
    jobs = _copies(jobs, precision)
    longest = max(job.episodes for job in jobs)
    rows = min(rows, -(-longest // workers))
    results: list[dict[int, Result]] = [{} for _ in jobs]
    played = (
        _play_in_processes(jobs, workers, rows, device)
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
    told = all(result.success is not None for result in results)
    return Episodes(
        np.array([result.reward for result in results]),
        np.array([result.length for result in results], dtype=np.int64),
        np.array([result.success for result in results], dtype=bool) if told else None,
    )


def check_world(policy: MemoryPolicy, env_id: str) -> None:
    """Check that a policy can act in a world.

    Raises:
        WorldMismatchError: observations or actions are not those of its training.
        UnsupportedSpaceError: its actions are not Discrete.
        UnknownEnvironmentError: no registered environment has this id.
    """
    if not isinstance(policy.action_space, spaces.Discrete):
        raise UnsupportedSpaceError(
            f"this agent's actions are {policy.action_space}: only agents with Discrete actions "
            "can be played here"
        )
    try:
        env = make_env(env_id, _parts(policy))
    except ObservationPartsError as error:
        raise WorldMismatchError(
            f"{env_id} is no MiniGrid or BabyAI world, but this agent was trained on one: choose "
            "such a world"
        ) from error
    env.close()
    for name in ("observation_space", "action_space"):
        known, found = getattr(policy, name), getattr(env, name)
        if known != found:
            raise WorldMismatchError(
                f"the {name.replace('_', ' ')} of {env_id} does not fit: the agent was trained "
                f"with {known}, this world has {found}: choose a world of the same kind"
            )


def _parts(policy: MemoryPolicy) -> tuple[str, ...] | None:
    """The parts that the agent's observations were made of, or None outside grid worlds."""
    space = policy.observation_space
    return tuple(cast(spaces.Dict, space).spaces) if is_grid_space(space) else None


def _copies(jobs: Sequence[Job], precision: Precision) -> list[Job]:
    """The jobs with copies of their policies, made for acting; what was shared stays shared."""
    copies: dict[int, MemoryPolicy] = {}
    for job in jobs:
        if id(job.policy) not in copies:
            policy = copy.deepcopy(job.policy).cpu()
            policy.set_training_mode(False)
            # Other encoders than that of grids cast observations to float32.
            if _parts(policy) is not None:
                policy = policy.to(getattr(torch, precision))
            copies[id(job.policy)] = policy
    return [Job(copies[id(j.policy)], j.env_id, j.episodes, j.deterministic) for j in jobs]


def _play_here(jobs: Sequence[Job], rows: int, device: str) -> Generator[Result]:
    for number, job in enumerate(jobs):
        yield from _play_rows(number, job, iter(range(job.episodes)), rows, device)


def _play_in_processes(
    jobs: Sequence[Job], workers: int, rows: int, device: str
) -> Generator[Result]:
    """Let every process go through all jobs; each takes the next episode that nobody has yet."""
    context = multiprocessing.get_context("spawn")
    taken = context.Array("q", len(jobs))
    # Pickled once, for a pipe to our own children; no file holds it.
    work = pickle.dumps(jobs)
    processes: dict[Connection, Any] = {}
    try:
        with _signals_postponed():
            for _ in range(workers):
                here, there = context.Pipe()
                process = context.Process(
                    target=_work, args=(there, taken, rows, device), daemon=True
                )
                process.start()
                there.close()  # the child's alone keeps the pipe open
                processes[here] = process
        for connection in processes:
            # Not an argument of the process: its start would wait until the child can read.
            with suppress(ConnectionError):  # a dead child is found below
                connection.send_bytes(work)
        while processes:
            for ready in wait(list(processes)):
                connection = cast(Connection, ready)
                try:
                    yield Result(*connection.recv())
                except (EOFError, ConnectionError):
                    process = processes.pop(connection)
                    process.join()
                    if process.exitcode != 0:
                        raise WorkerError(process.exitcode) from None
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


@contextmanager
def _signals_postponed() -> Iterator[None]:
    """Start processes all or none, and let Ctrl-C never reach them.

    A terminal sends it to all of its processes, but only this one is to answer, by ending the
    others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs no signal handlers here
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: came.append(n)) for number in signals}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the children inherit this
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in signals:
            signal.signal(number, handlers[number])
        for signalled in came:
            signal.raise_signal(signalled)


def _work(parent: Connection, taken: Any, rows: int, device: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)  # there is a process for each core
    jobs: list[Job] = pickle.loads(parent.recv_bytes())

    def episodes(number: int) -> Iterator[int]:
        while True:
            with taken.get_lock():
                episode = taken[number]
                taken[number] += 1
            if episode >= jobs[number].episodes:
                return
            yield episode

    try:
        for number, job in enumerate(jobs):
            for result in _play_rows(number, job, episodes(number), rows, device):
                parent.send(tuple(result))
    except ConnectionError:
        return  # nobody waits for the results any more


class _Row:
    """An environment, and the episode that it is in."""

    def __init__(self, env: gym.Env[Any, Any], seeds: Sequence[int]) -> None:
        self.env = env
        self.seeds = seeds

    def start(self, episode: int) -> None:
        self.episode = episode
        seed = self.seeds[episode]
        # The environment's own generator is made from the seed alone: this one must differ.
        self.generator = np.random.default_rng((seed, 1))
        self.observation, _ = self.env.reset(seed=seed)
        self.reward, self.length = 0.0, 0
        self.success: bool | None = None

    def step(self, action: int) -> bool:
        """Act, and return whether the episode is over."""
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.reward += float(reward)
        self.length += 1
        self.success = bool(info["is_success"]) if "is_success" in info else None
        return terminated or truncated


def _play_rows(
    number: int, job: Job, episodes: Iterator[int], rows: int, device: str
) -> Iterator[Result]:
    """Play a job's episodes, ``rows`` at a time: where one ends, the next one starts."""
    policy = job.policy.to(device)
    parts = _parts(policy)
    seeds = evaluation_seeds(job.episodes)
    table: list[_Row] = []
    # Not zip(range(rows), episodes): it would take one episode too many from a shared counter.
    while len(table) < rows and (episode := next(episodes, None)) is not None:
        env = make_env(job.env_id, parts)
        hasten_view(env)
        row = _Row(env, seeds)
        row.start(episode)
        table.append(row)
    state = policy.initial_state(len(table))
    known: dict[Any, Any] = {}
    while table:
        with torch.no_grad(), kernels.constant_weights(known):
            observations = _stack([row.observation for row in table], device)
            starts = torch.tensor([row.length == 0 for row in table], device=device)
            latent, state = policy.remember(observations, state, starts)
            logits = cast(Any, policy.distribution(latent)).log_probs
        draws = None if job.deterministic else [row.generator.random() for row in table]
        alive = []
        for i, action in enumerate(choose(logits, draws)):
            row = table[i]
            if row.step(action):
                yield Result(number, row.episode, row.reward, row.length, row.success)
                following = next(episodes, None)
                if following is None:
                    row.env.close()
                    continue
                row.start(following)
            alive.append(i)
        if len(alive) < len(table):
            table = [table[i] for i in alive]
            state = take_rows(state, torch.tensor(alive, dtype=torch.int64, device=device))


def _stack(observations: Sequence[Any], device: str) -> Any:
    if isinstance(observations[0], dict):
        return {part: _stack([o[part] for o in observations], device) for part in observations[0]}
    return torch.as_tensor(np.stack(observations), device=device)


def choose(logits: Tensor, draws: Sequence[float] | None) -> list[int]:
    """Choose an action for each row by inverting its cumulative distribution.

    Args:
        logits: [B, A].
        draws: [B] uniform numbers in [0, 1), each a row's own; None takes the most probable.
    """
    if draws is None:
        return cast("list[int]", logits.argmax(dim=1).tolist())
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    below = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] >= cumulative
    # Rounding may leave the last sum a little below 1.
    return cast("list[int]", below.sum(dim=1).clamp(max=logits.shape[1] - 1).tolist())
