"""Processes that play episodes: each takes the next one that nobody has taken yet."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch

from relagent.errors import RelagentError
from relagent.rl.episodes import Job, Result, play_rows


class WorkerError(RelagentError):
    """A process that played episodes has ended before its work was done."""

    def __init__(self, code: int | None) -> None:
        killed = code is None or code < 0
        super().__init__(
            f"a process that played episodes ended with code {code}: "
            + ("maybe memory was short, try fewer workers" if killed else "its error stands above")
        )


def play_in_processes(
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
    for job in jobs:  # a module may register the worlds of others, too
        if ":" in job.env_id:
            import_module(job.env_id.partition(":")[0])

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
            for result in play_rows(number, job, episodes(number), rows, device):
                parent.send(tuple(result))
    except ConnectionError:
        return  # nobody waits for the results any more
