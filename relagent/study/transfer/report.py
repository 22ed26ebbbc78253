"""From results to ``results/table4``: tables, figures, and the page that explains them."""

from __future__ import annotations

from collections.abc import Sequence

from relagent.rl.train import TrainConfig
from relagent.runs.config import names_of
from relagent.study.report import ReportError
from relagent.study.transfer import figures
from relagent.study.transfer.page import page
from relagent.study.transfer.results import RunResult
from relagent.study.transfer.tables import table_rows
from relagent.study.transfer.view import View
from relagent.table import csv_text, markdown


def contents(results: Sequence[RunResult]) -> dict[str, bytes]:
    """The files of the report, by name: README.md, table4.md, .csv and the figures.

    Raises:
        ReportError: runs that differ in more than their seed would be averaged.
    """
    _check_settings(results)
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


def _check_settings(results: Sequence[RunResult]) -> None:
    """Refuse to take runs that were trained differently for seeds of one row."""
    anywhere = {"seed", *names_of(TrainConfig, "machine")}
    rows: dict[tuple[str, str, str], RunResult] = {}
    for run in results:
        first = rows.setdefault((run.protocol, run.pair, run.memory), run)
        for name in {**first.config, **run.config}:
            value, other = (one.config.get(name, "not set") for one in (run, first))
            if name not in anywhere and value != other:
                raise ReportError(
                    f"{first.name} was trained with {name} {other}, {run.name} with "
                    f"{value}: keep runs of other settings in a folder of their own"
                )


def _markdown(view: View) -> str:
    return "\n".join(
        f"## Protocol *{protocol}*\n\n{markdown(*table_rows(view, protocol))}"
        for protocol in view.protocols
    )
