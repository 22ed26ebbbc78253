"""``python -m relagent.study``: table4, task, watch, copy, denoise, mnist, ptb, peak, report."""

from __future__ import annotations

import argparse
import sys

from relagent.runs.cli import ArgumentParser, main_guard
from relagent.runs.files import writing
from relagent.study.command import add_results
from relagent.study.supervised.command import add_commands as add_supervised
from relagent.study.transfer.command import add_commands as add_transfer


def main() -> int:
    """Read the command line and do what it says."""
    parser = ArgumentParser(
        prog="python -m relagent.study", description="Many runs, their report, and films of them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_transfer(commands)
    add_supervised(commands)
    command = commands.add_parser("report", help="make tables, figures and their page")
    add_results(command, "table4")
    command.set_defaults(command=report)
    arguments = parser.parse_args()
    return int(arguments.command(arguments))


def report(arguments: argparse.Namespace) -> int:
    """Make tables, figures and their page, of whatever study the results are."""
    from relagent.study.report import write_report

    with writing(arguments.results):
        written = write_report(arguments.results)
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
