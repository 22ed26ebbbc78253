"""Train an agent with a memory: ``train_rl.py --env MiniGrid-DoorKey-5x5-v0 --memory rel``."""

from __future__ import annotations

import sys
from pathlib import Path

from relagent.rl.train import TrainConfig, resume, train
from relagent.runs.cli import ArgumentParser, GracefulStop, folder, main_guard
from relagent.runs.config import add_arguments, from_arguments, given_arguments


def main() -> int:
    """Read the command line and train."""
    parser = ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("--run-dir", type=folder, help="Folder of the new run (default: runs/...).")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="Go on with this run.")
    add_arguments(parser, TrainConfig)
    arguments = parser.parse_args()
    with GracefulStop() as stop:
        if arguments.resume is None:
            config = from_arguments(TrainConfig, arguments)
            config.check_effect(given_arguments(TrainConfig, arguments))
            finished = train(config, arguments.run_dir, lambda: stop.requested)
        else:
            if arguments.run_dir is not None:
                parser.error("--run-dir names a new run, --resume an old one: give one of them")
            changes = given_arguments(TrainConfig, arguments)
            finished = resume(arguments.resume, changes, lambda: stop.requested)
    return 0 if finished else stop.exit_code


if __name__ == "__main__":
    sys.exit(main_guard(main))
