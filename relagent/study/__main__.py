"""``python -m relagent.study``: table4, task, report, watch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from relagent.envs import PAIRS
from relagent.memories import MEMORIES
from relagent.runs.cli import ArgumentParser, GracefulStop, main_guard
from relagent.runs.directory import RunWriteError
from relagent.runs.machine import available_cores
from relagent.study.board import Board
from relagent.study.execute import run_task
from relagent.study.local import run_here, task_from_stdin
from relagent.study.protocol import NAMES, load_protocol
from relagent.study.tasks import Task, TaskError, in_order, pair_named

RESULTS = Path("results/table4")


def main() -> int:
    """Read the command line and do what it says."""
    parser = ArgumentParser(
        prog="python -m relagent.study", description="Many runs, their report, and films of them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _table4_parser(commands.add_parser("table4", help="train and play the grid of Table 4"))
    _task_parser(commands.add_parser("task", help="do one cell of the grid"))
    _report_parser(commands.add_parser("report", help="make tables, figures and their page"))
    _watch_parser(commands.add_parser("watch", help="film an episode of a trained agent"))
    arguments = parser.parse_args()
    return int(arguments.command(arguments))


def _common(parser: argparse.ArgumentParser) -> None:
    """Options of both table4 and task."""
    parser.add_argument("--steps", type=_count, metavar="N", help="instead of the protocol's")
    parser.add_argument(
        "--episodes",
        type=_count,
        default=Task.episodes,
        metavar="N",
        help="in each world, sampled and greedy (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float64", "float32"),
        default=Task.precision,
        help="number format of the playing agent (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default=Task.device, help="where training computes (default: %(default)s)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("runs/table4"),
        metavar="DIR",
        help="folder of the runs (default: %(default)s)",
    )
    _results(parser)


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )


def _table4_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=_count, metavar="N", help="default: the protocol's number")
    parser.add_argument(
        "--only", nargs="+", metavar="PAIR", help=f"of {', '.join(pair.name for pair in PAIRS)}"
    )
    parser.add_argument(
        "--memories", nargs="+", choices=MEMORIES, metavar="NAME", help="default: the protocol's"
    )
    parser.add_argument(
        "--protocol", metavar="NAME", help=f"{' or '.join(NAMES)} or a JSON file (default: both)"
    )
    parser.add_argument(
        "--jobs", type=_count, metavar="N", help="tasks at the same time (default: one a core)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run on this Ray cluster instead (auto finds a local one)"
    )
    _common(parser)
    parser.set_defaults(command=table4)


def table4(arguments: argparse.Namespace) -> int:
    """Do the grid."""
    protocols = [load_protocol(name) for name in _one_or_all(arguments.protocol)]
    only = arguments.only or [pair.name for pair in PAIRS]
    pairs = {pair.name: pair for pair in map(pair_named, only)}
    tasks = in_order(
        Task(protocol, pair, memory, seed, **_task_options(arguments))
        for protocol in protocols
        for pair in pairs.values()
        for memory in dict.fromkeys(arguments.memories or protocol.memories)
        for seed in range(arguments.seeds or protocol.seeds)
    )
    with GracefulStop() as stop:
        board = Board(tasks)
        left = []
        for task in tasks:  # before anything starts: a conflict is said now
            if task.finished():
                board[task].finish()
            else:
                task.check_run()
                left.append(task)
        say = board.console.print
        say(f"runs: {len(tasks)}, finished: {len(tasks) - len(left)}", highlight=False)
        with board.live():
            if arguments.ray is not None:
                from relagent.study.cluster import run_on_ray

                run_on_ray(left, board, lambda: stop.requested, arguments.ray)
            else:
                jobs = arguments.jobs or available_cores()
                run_here(left, board, lambda: stop.requested, jobs)
    for line in board:
        if line.state == "failed":
            say(f"failed: {line.task.name}: {line.note}", highlight=False, markup=False)
    if stop.requested:
        say("stopped; the same command goes on where it was", highlight=False)
        return stop.exit_code
    if board.count("failed"):
        say(f"{board.count('failed')} failed; the same command tries them again", highlight=False)
        return 1
    say(f"next: python -m relagent.study report --results {arguments.results}", highlight=False)
    return 0


def _one_or_all(name: str | None) -> tuple[str, ...]:
    return NAMES if name is None else (name,)


def _task_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", metavar="NAME", help=f"{' or '.join(NAMES)} or a JSON file")
    parser.add_argument("--pair", metavar="NAME", help="such as doorkey")
    parser.add_argument("--memory", choices=MEMORIES, metavar="NAME", help="such as rel")
    parser.add_argument("--seed", type=int, metavar="N", help="0 or more")
    # How table4 starts it: the task comes as JSON, and the end of the input is the end of table4.
    parser.add_argument("--from-stdin", action="store_true", help=argparse.SUPPRESS)
    _common(parser)
    parser.set_defaults(command=task)


def task(arguments: argparse.Namespace) -> int:
    """Do one cell of the grid."""
    with GracefulStop() as stop:
        if arguments.from_stdin:
            chosen = task_from_stdin()
        else:
            for name in ("protocol", "pair", "memory", "seed"):
                if getattr(arguments, name) is None:
                    raise TaskError(f"--{name} is needed: say which task")
            chosen = Task(
                load_protocol(arguments.protocol),
                pair_named(arguments.pair),
                arguments.memory,
                arguments.seed,
                **_task_options(arguments),
            )
        finished = run_task(chosen, lambda: stop.requested)
    if finished and not arguments.from_stdin:
        print(f"result: {chosen.result}")
    return 0 if finished else stop.exit_code


def _task_options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("root", "results", "steps", "episodes", "precision", "device")
    return {name: getattr(arguments, name) for name in names}


def _report_parser(parser: argparse.ArgumentParser) -> None:
    _results(parser)
    parser.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    """Make tables, figures and their page."""
    from relagent.study.report import write_report

    try:
        for path in write_report(arguments.results):
            print(path)
    except OSError as error:
        raise RunWriteError(arguments.results, error.strerror or str(error)) from error
    return 0


def _watch_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--world", metavar="ID", help="default: the one it was trained in")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".gif or, with ffmpeg, .mp4")
    parser.add_argument("--episodes", type=_count, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="number of the first evaluation episode"
    )
    parser.add_argument("--greedy", action="store_true", help="take the most probable action")
    parser.set_defaults(command=watch)


def watch(arguments: argparse.Namespace) -> int:
    """Film episodes."""
    from relagent.study.watch import film

    path = film(
        arguments.run,
        arguments.world,
        arguments.out,
        episodes=arguments.episodes,
        first=arguments.first,
        greedy=arguments.greedy,
        say=Console(stderr=True).print,
    )
    print(path)
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__ = "number of at least 1"  # argparse says "invalid number of at least 1 value"


if __name__ == "__main__":
    sys.exit(main_guard(main))
