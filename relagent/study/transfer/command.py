"""The commands ``table4``, ``task`` and ``watch``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from relagent.envs import PAIRS
from relagent.memories import MEMORIES
from relagent.runs.cli import GracefulStop, count
from relagent.study.command import add_folders, add_runner, do_grid
from relagent.study.transfer.protocol import NAMES, load_protocol
from relagent.study.transfer.task import TransferTask, in_order, pair_named


def add_commands(commands: Any) -> None:
    """Add them to a parser's subparsers."""
    _table4_parser(commands.add_parser("table4", help="train and play the grid of Table 4"))
    _task_parser(commands.add_parser("task", help="do one cell of that grid"))
    _watch_parser(commands.add_parser("watch", help="film an episode of a trained agent"))


def _common(parser: argparse.ArgumentParser) -> None:
    """Options of both table4 and task."""
    parser.add_argument("--steps", type=count, metavar="N", help="instead of the protocol's")
    parser.add_argument(
        "--episodes",
        type=count,
        default=TransferTask.episodes,
        metavar="N",
        help="in each world, sampled and greedy (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float64", "float32"),
        default=TransferTask.precision,
        help="number format of the playing agent (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default=TransferTask.device,
        help="where training computes (default: %(default)s)",
    )
    add_folders(parser, "table4")


def _table4_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=count, metavar="N", help="default: the protocol's number")
    parser.add_argument(
        "--only", nargs="+", metavar="PAIR", help=f"of {', '.join(pair.name for pair in PAIRS)}"
    )
    parser.add_argument(
        "--memories",
        nargs="+",
        choices=MEMORIES,
        metavar="NAME",
        help=f"of {', '.join(MEMORIES)} (default: the protocol's)",
    )
    parser.add_argument(
        "--protocol", metavar="NAME", help=f"{' or '.join(NAMES)} or a JSON file (default: both)"
    )
    add_runner(parser)
    _common(parser)
    parser.set_defaults(command=table4)


def table4(arguments: argparse.Namespace) -> int:
    """Do the grid."""
    protocols = [load_protocol(name) for name in _one_or_all(arguments.protocol)]
    only = arguments.only or [pair.name for pair in PAIRS]
    pairs = {pair.name: pair for pair in map(pair_named, only)}
    tasks = in_order(
        TransferTask(protocol, pair, memory, seed, **_task_options(arguments))
        for protocol in protocols
        for pair in pairs.values()
        for memory in dict.fromkeys(arguments.memories or protocol.memories)
        for seed in range(arguments.seeds or protocol.seeds)
    )
    return do_grid(tasks, arguments)


def _one_or_all(name: str | None) -> tuple[str, ...]:
    return NAMES if name is None else (name,)


def _task_parser(parser: argparse.ArgumentParser) -> None:
    said: dict[str, Any] = {"required": True, "metavar": "NAME"}
    parser.add_argument("--protocol", **said, help=f"{' or '.join(NAMES)} or a JSON file")
    parser.add_argument("--pair", **said, help=f"one of {', '.join(pair.name for pair in PAIRS)}")
    parser.add_argument("--memory", **said, choices=MEMORIES, help=f"one of {', '.join(MEMORIES)}")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="0 or more")
    _common(parser)
    parser.set_defaults(command=task)


def task(arguments: argparse.Namespace) -> int:
    """Do one cell of the grid."""
    chosen = TransferTask(
        load_protocol(arguments.protocol),
        pair_named(arguments.pair),
        arguments.memory,
        arguments.seed,
        **_task_options(arguments),
    )
    with GracefulStop() as stop:
        if not chosen.do(lambda: stop.requested):
            return stop.exit_code
    print(f"result: {chosen.result}")
    return 0


def _task_options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("root", "results", "steps", "episodes", "precision", "device")
    return {name: getattr(arguments, name) for name in names}


def _watch_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--world", metavar="ID", help="default: the one it was trained in")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".gif or, with ffmpeg, .mp4; takes the place of one that is there (default: "
        "RUN/films/WORLD.gif)",
    )
    parser.add_argument("--episodes", type=count, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="number of the first evaluation episode"
    )
    parser.add_argument("--greedy", action="store_true", help="take the most probable action")
    parser.set_defaults(command=watch)


def watch(arguments: argparse.Namespace) -> int:
    """Film episodes."""
    from relagent.study.transfer.watch import film

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
