"""``python -m relagent.tasks``: copy, denoise, mnist, ptb, transfer-copy."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from relagent.runs.cli import ArgumentParser, GracefulStop, count, folder, main_guard
from relagent.runs.config import add_arguments, given_arguments
from relagent.runs.directory import RunDirectory
from relagent.runs.files import writing
from relagent.runs.resuming import ResumeError
from relagent.tasks.config import TaskConfig
from relagent.tasks.defaults import TASKS, default_config
from relagent.tasks.run import load_model, read_task_config
from relagent.tasks.train import resume, train
from relagent.tasks.transfer import add_score, check_delay, transfer

TRANSFER_FILE = "transfer-copy.json"


def main() -> int:
    """Read the command line and do what it says."""
    parser = ArgumentParser(
        prog="python -m relagent.tasks",
        description="Train a memory on a supervised task with long dependencies.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, kind in TASKS.items():
        # An option may be defined again: --task is said by the command already.
        command = commands.add_parser(name, help=f"train on {name}", conflict_handler="resolve")
        command.add_argument(
            "--run-dir", type=folder, help="folder of the new run (default: runs/...)"
        )
        command.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run")
        add_arguments(command, kind)
        command.add_argument("--task", default=name, choices=(name,), help=argparse.SUPPRESS)
        command.set_defaults(command=train_command, parser=command)
    _transfer_parser(
        commands.add_parser("transfer-copy", help="score a run of copy or denoise at other T")
    )
    arguments = parser.parse_args()
    return int(arguments.command(arguments))


def train_command(arguments: argparse.Namespace) -> int:
    """Train, or go on with a run."""
    given = given_arguments(TASKS[arguments.task], arguments)
    with GracefulStop() as stop:
        if arguments.resume is None:
            memory = getattr(arguments, "memory", TaskConfig.memory)
            config = default_config(**{"memory": memory, **given})
            finished = train(config, arguments.run_dir, lambda: stop.requested)
        else:
            if arguments.run_dir is not None:
                arguments.parser.error("--run-dir names a new run, --resume an old one: give one")
            trained = read_task_config(RunDirectory.open(arguments.resume)).task
            if trained != arguments.task:
                raise ResumeError(
                    f"{arguments.resume} is a run of {trained}: go on with python -m "
                    f"relagent.tasks {trained} --resume {shlex.quote(str(arguments.resume))}"
                )
            finished = resume(arguments.resume, given, lambda: stop.requested)
    return 0 if finished else stop.exit_code


def _transfer_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--T",
        type=count,
        nargs="+",
        metavar="N",
        default=[200, 400, 1000, 2000, 5000],
        help="delays to score at (default: 200 400 1000 2000 5000)",
    )
    for name, what in (("--batches", "at each delay"), ("--batch-size", "sequences in a batch")):
        parser.add_argument(
            name, type=count, default=100, metavar="N", help=f"{what} (default: 100)"
        )
    parser.add_argument("--device", default="auto", help="where to compute (default: auto)")
    parser.set_defaults(command=transfer_command)


def transfer_command(arguments: argparse.Namespace) -> int:
    """Score a run at other delays."""
    check_delay(read_task_config(RunDirectory.open(arguments.run)))  # before data are missed
    loaded = load_model(arguments.run, arguments.device)
    delays = list(dict.fromkeys(arguments.T))
    path = arguments.run / TRANSFER_FILE
    for T in delays:
        score = transfer(loaded, T, batches=arguments.batches, batch_size=arguments.batch_size)
        print(
            f"T = {T:,}: accuracy {100 * score.score.accuracy:.2f}%, loss {score.score.loss:.5f}, "
            f"{score.sequences:,} sequences",
            flush=True,
        )
        with writing(path):
            add_score(path, loaded, score)
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
