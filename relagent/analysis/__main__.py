"""Which steps a trained run's gradient flows to: ``python -m relagent.analysis RUN``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from relagent.analysis.report import AnalysisConfig, analyse
from relagent.runs.cli import ArgumentParser, main_guard
from relagent.runs.config import add_arguments, from_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, analyse, and say where the page is."""
    parser = ArgumentParser(
        prog="python -m relagent.analysis",
        description="Look into a trained run, an agent's or a task's: what its memory attends to "
        "and which steps its gradient flows to, as pictures and a page.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    add_arguments(parser, AnalysisConfig)
    arguments = parser.parse_args(argv)
    print(analyse(arguments.run, from_arguments(AnalysisConfig, arguments)))


if __name__ == "__main__":
    sys.exit(main_guard(main))
