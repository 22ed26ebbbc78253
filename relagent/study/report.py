"""From result files to a page with tables and figures, whatever study they are of."""

from __future__ import annotations

import json
from pathlib import Path

from relagent.errors import RelagentError
from relagent.runs.files import write_atomically


class ReportError(RelagentError):
    """There is nothing to report, or no one study."""


def write_report(folder: Path) -> list[Path]:
    """Make the report of all results in a folder, over an earlier one.

    Args:
        folder: holds ``runs/*.json``; gets README.md, the tables and the figures.

    Returns:
        The files written.

    Raises:
        ReportError: there are no results, or results of different studies.
        ResultError: a file among them is damaged.
    """
    paths = sorted((folder / "runs").glob("*.json"))
    if not paths:
        raise ReportError(
            f"no results in {folder / 'runs'}: make some with python -m relagent.study "
            "(table4, copy, denoise, mnist, ptb)"
        )
    kinds = {_is_supervised(path) for path in paths}
    if {True, False} <= kinds:
        raise ReportError(
            f"results of agents and of sequence models in {folder / 'runs'}: keep each study in "
            "its own folder"
        )
    if True in kinds:
        from relagent.study.supervised.report import contents as supervised_contents
        from relagent.study.supervised.result import read_results as read_supervised

        files = supervised_contents(read_supervised(folder), folder)
    else:
        from relagent.study.transfer.report import contents
        from relagent.study.transfer.results import read_results

        files = contents(read_results(folder))
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _is_supervised(path: Path) -> bool | None:
    """Whether a result is of a supervised study; of a damaged one None."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return "study" in data if isinstance(data, dict) and "format" in data else None
