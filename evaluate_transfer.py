"""Score trained runs on larger worlds, unchanged: ``evaluate_transfer.py RUN [RUN ...]``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from rich.console import Console

from relagent.rl.transfer import TransferConfig, evaluate
from relagent.runs.cli import ArgumentParser, main_guard
from relagent.runs.config import add_arguments, from_arguments


def main() -> None:
    """Read the command line, play, and show the table."""
    parser = ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="Folder of a run.")
    add_arguments(parser, TransferConfig)
    arguments = parser.parse_args()
    config = from_arguments(TransferConfig, arguments)
    # Unwound like Ctrl-C, so that no playing process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    report, folder = evaluate(arguments.runs, config, Console(stderr=True))
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    report.print(console)
    print(f"written to {folder}/transfer.json, .csv, .md and .png")


if __name__ == "__main__":
    sys.exit(main_guard(main))
