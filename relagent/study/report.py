"""From result files to ``results/table4``: tables, figures, and the page that explains them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from relagent.errors import RelagentError
from relagent.runs.files import write_atomically
from relagent.study import figures
from relagent.study.page import page
from relagent.study.results import read_results
from relagent.study.tables import markdown, table_rows
from relagent.study.view import View


class ReportError(RelagentError):
    """There is nothing to report."""


def write_report(folder: Path) -> list[Path]:
    """Make the report of all results in a folder, over an earlier one.

    Args:
        folder: holds ``runs/*.json``; gets README.md, table4.md, .csv, .png and the figures.

    Returns:
        The files written.

    Raises:
        ReportError: there are no results.
        ResultError: a file among them is damaged.
    """
    results = read_results(folder)
    if not results:
        raise ReportError(
            f"no results in {folder / 'runs'}: make some with python -m relagent.study table4"
        )
    view = View(results)
    contents: dict[str, bytes] = {
        "table4.md": _markdown(view).encode(),
        "table4.csv": _csv(view).encode(),
        "aggregate.png": figures.aggregate_figure(view),
        "profiles.png": figures.profile_figure(view),
        "README.md": page(view).encode(),
    }
    for protocol in view.protocols:
        contents |= {
            f"table4-{protocol}.png": figures.table_figure(view, protocol),
            f"curves-{protocol}.png": figures.curves_figure(view, protocol),
            f"transfer-{protocol}.png": figures.transfer_figure(view, protocol),
        }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def _markdown(view: View) -> str:
    return "\n".join(
        f"## Protocol *{protocol}*\n\n{markdown(*table_rows(view, protocol))}"
        for protocol in view.protocols
    )


def _csv(view: View) -> str:
    rows = view.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
