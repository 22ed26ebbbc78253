"""The figures, one command each: ``python -m relagent.analysis.figures theorem1 --out DIR``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from relagent.analysis.kept import COMMAND
from relagent.analysis.theorem_figures import THEOREM_FIGURES
from relagent.analysis.trained import StoppedError
from relagent.analysis.trained_figures import TRAINED_FIGURES
from relagent.picture import png
from relagent.runs.cli import ArgumentParser, GracefulStop, main_guard
from relagent.runs.config import add_arguments, from_arguments, to_json
from relagent.runs.files import output_folder, write_atomically, writing
from relagent.runs.provenance import provenance


def _without_places(words: Sequence[str]) -> list[str]:
    """The words of the command line without the folders: what decides what is drawn."""
    kept = list(COMMAND)
    skip = False
    for word in words:
        if not skip and not word.startswith(("--runs=", "--out=")) and word not in _PLACES:
            kept.append(word)
        skip = word in _PLACES
    return kept


_PLACES = ("--runs", "--out")
MODELS = "models"
"""Folder beside the figures for what was measured of each of their models."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one figure into a folder, as NAME.png; of trained models also NAME.json."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = ArgumentParser(prog="python -m relagent.analysis.figures", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="NAME", dest="name")
    for name, function in (
        *THEOREM_FIGURES.items(),
        *((n, f) for n, (_, f) in TRAINED_FIGURES.items()),
    ):
        summary = str(function.__doc__).split("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--out", type=Path, default=Path(), help="folder to write into")
        if name in TRAINED_FIGURES:
            add_arguments(command, TRAINED_FIGURES[name][0])
    arguments = parser.parse_args(words)
    name, folder = arguments.name, arguments.out
    if name in THEOREM_FIGURES:
        with output_folder(folder):
            _write(folder, {f"{name}.png": png(THEOREM_FIGURES[name](), dpi=110)})
        return 0
    kind, draw = TRAINED_FIGURES[name]
    config = from_arguments(kind, arguments)
    with output_folder(folder), GracefulStop() as stop:
        try:
            figure, numbers = draw(config, folder / MODELS, lambda: stop.requested)
        except StoppedError as error:
            print(error, file=sys.stderr)
            return stop.exit_code
        # Where runs and figures are kept has no part in them.
        settings = {key: value for key, value in to_json(config).items() if key != "runs"}
        record = {
            "figure": name,
            "settings": settings,
            **numbers,
            "provenance": provenance(command=_without_places(words)),
        }
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        _write(folder, {f"{name}.png": png(figure, dpi=110), f"{name}.json": text.encode()})
    return 0


def _write(folder: Path, files: dict[str, bytes]) -> None:
    with writing(folder):
        for name, content in files.items():
            write_atomically(folder / name, content)
            print(folder / name)


if __name__ == "__main__":
    sys.exit(main_guard(main))
