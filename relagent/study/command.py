"""What the commands of all studies share: options, and doing a grid."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from relagent.runs.cli import GracefulStop, count
from relagent.runs.device import computing_device
from relagent.runs.machine import available_cores
from relagent.study.board import Board
from relagent.study.local import run_here
from relagent.study.task import Task


def add_folders(parser: argparse.ArgumentParser, study: str, root: Path | None = None) -> None:
    """Add ``--root`` (by default ``runs/STUDY``) and ``--results``."""
    parser.add_argument(
        "--root",
        type=Path,
        default=root or Path("runs") / study,
        metavar="DIR",
        help="folder of the runs (default: %(default)s)",
    )
    add_results(parser, study)


def add_results(parser: argparse.ArgumentParser, study: str) -> None:
    """Add ``--results``."""
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results") / study,
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )


def add_runner(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--ray``."""
    parser.add_argument(
        "--jobs", type=count, metavar="N", help="tasks at the same time (default: one a core)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run on this Ray cluster instead (auto finds a local one)"
    )


def do_grid(tasks: Sequence[Task], arguments: argparse.Namespace) -> int:
    """Do what is not done yet of a grid.

    Args:
        tasks: in the order of doing.
        arguments: of a parser with :func:`add_folders` and :func:`add_runner`.

    Returns:
        The exit code: 0, 1 where a task failed, 130 or 143 after a signal.

    Raises:
        TaskConflictError: a run or a result was made with other settings; nothing was started.
        DeviceError: this machine has no such device.
    """
    if arguments.ray is None:  # another machine may have what this one lacks
        computing_device(arguments.device)
    with GracefulStop() as stop:
        board = Board(tasks)
        left = []
        for task in tasks:  # before anything starts: a conflict is said now
            if task.finished():
                board[task].finish()
            else:
                task.check_run()
                left.append(task)
        for folder in (arguments.root, arguments.results):
            folder.mkdir(parents=True, exist_ok=True)  # where they cannot be, nothing is trained
        say = partial(board.console.print, highlight=False, markup=False, soft_wrap=True)
        say(f"runs: {len(tasks)}, finished: {len(tasks) - len(left)}")
        with board.live():
            if arguments.ray is not None:
                from relagent.study.cluster import run_on_ray

                run_on_ray(left, board, lambda: stop.requested, arguments.ray)
            else:
                jobs = arguments.jobs or available_cores()
                run_here(left, board, lambda: stop.requested, jobs)
    for line in board:
        if line.state == "failed":
            say(f"failed: {line.task.name}: {line.note}")
    if stop.requested:
        say("stopped; the same command goes on where it was")
        return stop.exit_code
    if board.count("failed"):
        say(f"{board.count('failed')} failed; the same command tries them again")
        return 1
    say(f"next: python -m relagent.study report --results {arguments.results}")
    return 0
