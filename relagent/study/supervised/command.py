"""The commands ``copy``, ``denoise``, ``mnist``, ``ptb`` and ``peak``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from relagent.memories import MEMORIES
from relagent.runs.cli import count
from relagent.runs.config import add_arguments
from relagent.runs.files import writing
from relagent.study.command import add_folders, add_results, add_runner, do_grid
from relagent.study.supervised.grid import GRIDS, GridError, chosen_cells
from relagent.study.supervised.task import SupervisedTask, in_order
from relagent.tasks.config import OPTIONS, GeneratedConfig, TaskConfig, settings_of
from relagent.tasks.defaults import TASKS, default_config


def add_commands(commands: Any) -> None:
    """Add them to a parser's subparsers."""
    for name in GRIDS:
        # An option may be defined again: some settings of one run are several ones here.
        command = commands.add_parser(
            name, help=f"train memories on {name}", conflict_handler="resolve"
        )
        _grid_parser(command, name, TASKS[name])
    _peak_parser(commands.add_parser("peak", help="measure peak memory against the delay of copy"))


def _grid_parser(parser: argparse.ArgumentParser, study: str, kind: type[TaskConfig]) -> None:
    grid = GRIDS[study]
    generated = issubclass(kind, GeneratedConfig)
    add_arguments(parser, kind, grid.defaults)
    for flag, instead in REFUSED.items():
        parser.add_argument(flag, dest="unused", help=argparse.SUPPRESS, type=_refuse(instead))
    parser.add_argument(
        "--memories",
        nargs="+",
        choices=MEMORIES,
        metavar="NAME",
        help=f"of {', '.join(MEMORIES)} (default: {_listed(memory for _, memory in grid.cells)})",
    )
    if generated:
        parser.add_argument(
            "--T",
            nargs="+",
            type=count,
            metavar="N",
            dest="delays",
            help=f"default: {_listed(T for T, _ in grid.cells)}, of some memories fewer",
        )
    parser.add_argument(
        "--seeds", type=count, default=grid.seeds, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--updates" if generated else "--epochs",
        dest="budget",
        type=count,
        default=grid.budget,
        metavar="N",
        help=("of a run that is not solved before; " if generated else "of a run; ")
        + "more than before goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", help="where training computes (default: %(default)s)"
    )
    add_runner(parser)
    add_folders(parser, study, root=Path("runs"))
    parser.set_defaults(command=grid_command, study=study, delays=None)


def _listed(values: Iterable[object]) -> str:
    return " ".join(dict.fromkeys(map(str, values)))


REFUSED = {
    "--task": "the command's name says it",
    "--memory": "a study has several, use --memories",
    "--seed": "a study has several, use --seeds",
    "--threads": "each run has one thread, use --jobs",
}
"""Settings of one run that a study decides, and what to do instead."""


def _refuse(instead: str) -> Callable[[str], None]:
    def refuse(_: str) -> None:
        raise argparse.ArgumentTypeError(instead)

    return refuse


def grid_command(arguments: argparse.Namespace) -> int:
    """Do the grid of a study."""
    study: str = arguments.study
    names = {field.name for field in fields(TASKS[study])}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    given |= {"updates" if "updates" in names else "epochs": arguments.budget, "threads": 1}
    cells = chosen_cells(study, arguments.memories, arguments.delays)
    for name in given:
        if name in OPTIONS and not any(name in settings_of(memory) for _, memory in cells):
            raise GridError(f"none of these memories has --{name}: leave it out")
    tasks = []
    for T, memory in cells:
        for seed in range(arguments.seeds):
            settings = {**GRIDS[study].settings_of(memory, given), "seed": seed}
            if T is not None:
                settings["T"] = T
            config = default_config(study, memory, **settings)
            tasks.append(SupervisedTask(config, arguments.root, arguments.results))
    return do_grid(in_order(tasks), arguments)


def _peak_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--T",
        nargs="+",
        type=count,
        default=[100, 200, 400, 600, 800, 1000],
        metavar="N",
        dest="delays",
        help="delays to measure at (default: 100 200 400 600 800 1000)",
    )
    parser.add_argument(
        "--memories",
        nargs="+",
        choices=MEMORIES,
        default=["mem-rnn", "rel-rnn"],
        metavar="NAME",
        help="default: mem-rnn rel-rnn",
    )
    add_results(parser, "copy")
    parser.set_defaults(command=peak)


def peak(arguments: argparse.Namespace) -> int:
    """Measure peak memory."""
    from relagent.study.supervised.peak import FILE, measure, read, write

    path = arguments.results / FILE
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    for point, peaks in measure(arguments.memories, sorted(set(arguments.delays)), read(path)):
        memory, T, definition, kernel = point
        print(f"{memory}, T = {T:,}: {definition:,.0f} MB, by the kernel {kernel:,.0f} MB")
        write(path, peaks)
    print(path)
    return 0
