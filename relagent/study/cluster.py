"""The grid on a Ray cluster: Ray places the tasks, retries them and collects what they write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from relagent.errors import RelagentError
from relagent.runs.cli import GracefulStop
from relagent.runs.files import write_atomically
from relagent.study.board import Board
from relagent.study.task import Task, task_from_json, task_to_json

RETRIES = 5
"""How often a task is tried again whose machine or process was lost."""


class ClusterError(RelagentError):
    """Ray is not installed, or its cluster cannot be reached."""


def run_on_ray(tasks: Sequence[Task], board: Board, stop: Callable[[], bool], address: str) -> None:
    """Do tasks on a cluster; the board is told what becomes of each.

    Each task takes one core (and a GPU where ``device`` is cuda) and trains under the same ``root``
    folder as here. Where the machines share that folder, a task that is tried again goes on from
    its last checkpoint; where they do not, it starts over if it comes to another machine. Results
    come back through Ray and are written here. The machines need the same version of this package.

    Args:
        tasks: to be done, in the order of submission.
        board: see :class:`~relagent.study.board.Board`.
        stop: polled; true saves the runs and ends.
        address: of the cluster, as ``ray.init`` takes it.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray needs Ray: pip install ray") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(
                f"no Ray cluster at {address}: start one with 'ray start --head', or leave --ray "
                f"out ({error})"
            ) from error
    try:
        remote = ray.remote(do_remotely)
        futures: dict[Any, Task] = {}
        for task in tasks:
            where = _moved(task, root=task.root.resolve())
            placed = remote.options(
                num_cpus=1,
                num_gpus=1 if task.device.startswith("cuda") else 0,
                max_retries=RETRIES,
                # What the disk or the network refused may work elsewhere; other errors come again.
                retry_exceptions=[OSError],
            )
            futures[placed.remote(task_to_json(where))] = task
        _collect(ray, futures, board, stop)
    finally:
        if ours:
            ray.shutdown()


def _collect(ray: Any, futures: dict[Any, Task], board: Board, stop: Callable[[], bool]) -> None:
    cancelled = False
    before = {task.name: _last_written(task) for task in futures.values()}
    while futures:
        if stop() and not cancelled:
            cancelled = True
            for future in futures:  # an interrupt there, which saves; no more tries
                ray.cancel(future, force=False)
        ready, _ = ray.wait(list(futures), timeout=1.0)
        for future in ready:
            task = futures.pop(future)
            try:
                files = ray.get(future)
            except ray.exceptions.RayError as error:
                if cancelled:
                    board.set(task, "stopped")
                else:
                    board.set(task, "failed", _cause(error))
                continue
            if files is None:
                board.set(task, "stopped")
                continue
            for name, content in files.items():
                path = task.results / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
            board.set(task, "finished")
        for task in futures.values():
            # Where the folder of runs is shared, a new row of metrics tells that a task has begun.
            if board[task].state == "waiting" and _last_written(task) != before[task.name]:
                board.set(task, "training")
        board.refresh()


def _last_written(task: Task) -> int | None:
    """When the run's metrics were; None if there are none."""
    try:
        return (task.run / "metrics.jsonl").stat().st_mtime_ns
    except OSError:
        return None


def do_remotely(description: dict[str, Any]) -> dict[str, bytes] | None:
    """What a worker does: a task, whose result files it returns by name, or None if stopped."""
    task = task_from_json(description)
    results = Path(tempfile.mkdtemp(prefix="relagent-"))
    try:
        with GracefulStop() as stop:
            if not _moved(task, results=results).do(lambda: stop.requested):
                return None
        return {
            str(path.relative_to(results)): path.read_bytes()
            for path in sorted(results.rglob("*"))
            if path.is_file()
        }
    finally:
        with suppress(OSError):
            shutil.rmtree(results)


def _moved(task: Task, **folders: Path) -> Task:
    return task_from_json({**task_to_json(task), **{n: str(p) for n, p in folders.items()}})


def _cause(error: Exception) -> str:
    """The last line of what Ray says, which is the error's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
