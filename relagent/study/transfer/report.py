"""From results to ``results/table4``: tables, figures, and the page that explains them."""

from __future__ import annotations

from collections.abc import Sequence

from relagent.study.transfer import figures
from relagent.study.transfer.page import page
from relagent.study.transfer.results import RunResult
from relagent.study.transfer.tables import table_rows
from relagent.study.transfer.view import View
from relagent.table import csv_text, markdown


def contents(results: Sequence[RunResult]) -> dict[str, bytes]:
    """The files of the report, by name: README.md, table4.md, .csv and the figures."""
    view = View(results)
    files: dict[str, bytes] = {
        "table4.md": _markdown(view).encode(),
        "table4.csv": csv_text(view.rows()).encode(),
        "README.md": page(view).encode(),
    }
    if view.aggregates:
        files["aggregate.png"] = figures.aggregate_figure(view)
        files["profiles.png"] = figures.profile_figure(view)
    for protocol in view.protocols:
        files |= {
            f"table4-{protocol}.png": figures.table_figure(view, protocol),
            f"curves-{protocol}.png": figures.curves_figure(view, protocol),
            f"transfer-{protocol}.png": figures.transfer_figure(view, protocol),
        }
    return files


def _markdown(view: View) -> str:
    return "\n".join(
        f"## Protocol *{protocol}*\n\n{markdown(*table_rows(view, protocol))}"
        for protocol in view.protocols
    )
