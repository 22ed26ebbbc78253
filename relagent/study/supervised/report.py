"""From results to ``results/copy`` and its like: tables, figures, and the page around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relagent.study.supervised import figures, peak
from relagent.study.supervised.page import page
from relagent.study.supervised.result import SupervisedResult
from relagent.study.supervised.tables import main_table, number_rows
from relagent.study.supervised.view import View
from relagent.table import csv_text, markdown


def contents(results: Sequence[SupervisedResult], folder: Path) -> dict[str, bytes]:
    """The files of the report, by name: README.md, copy.md, .csv, .png and the figures.

    Args:
        results: of one study.
        folder: where the measurements of peak memory are, if there are any.
    """
    view = View(results)
    files = {
        f"{view.study}.md": markdown(*main_table(view)).encode(),
        f"{view.study}.csv": csv_text(number_rows(view)).encode(),
        f"{view.study}.png": figures.table_figure(view),
        "curves.png": figures.curves_figure(view),
    }
    if any(run.transfer for run in results):
        files["transfer.png"] = figures.transfer_figure(view)
    files["README.md"] = page(view, peak.read(folder / peak.FILE)).encode()
    return files
