"""The figures of a supervised report, each as the bytes of a PNG."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relagent.looks import look, title
from relagent.picture import png
from relagent.study.draw import draw_table, legend, make_panels, tidy
from relagent.study.supervised.result import SupervisedResult
from relagent.study.supervised.tables import main_table
from relagent.study.supervised.view import View, variant_title
from relagent.tasks.copy import N_SYMBOLS, memoryless_loss

WITHOUT = "without a memory"


def table_figure(view: View) -> bytes:
    """The main table as a picture: a cell is the darker the higher its accuracy."""
    heading, rows = main_table(view, bold=("", ""), line="\n")
    texts = [
        [cell.replace(", ", "\n").replace(" out", "\nout").replace(" (", "\n(") for cell in row]
        for row in rows
    ]
    shade = {}
    for row, name in enumerate(view.rows):
        for column, memory in enumerate(view.memories, start=1):
            runs = view.runs(name, memory)
            if runs:
                scores = [run.score["accuracy"] if run.score else 0.0 for run in runs]
                shade[row, column] = sum(scores) / len(scores)
    heights = [max(cell.count("\n") + 1 for cell in row) for row in texts]
    width = 1.25
    size = (width * len(heading), 0.2 + max(heights) * 0.19 * (1 + len(rows)))
    return draw_table(heading, texts, [1.0] * len(heading), size, shade)


def curves_figure(view: View) -> bytes:
    """How training went: a panel for each form of the task, a line for each run."""
    figure, panels = make_panels(len(view.variants))
    handles: dict[str, Any] = {}
    for axes, name in zip(panels, view.variants, strict=True):
        for memory in view.memories:
            for run in view.runs(name, memory):
                line = _curve(axes, run)
                if line is not None:
                    handles[title(memory)] = line
        axes.set_title(variant_title(name), fontsize="medium")
        if view.generated:
            handles[WITHOUT] = axes.axhline(
                memoryless_loss(int(name[1:])), color="0.5", lw=1, ls=(0, (1, 2))
            )
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xlabel("updates" if view.generated else "epoch")
        if not view.generated:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(CURVES[view.study])
        tidy(axes)
    legend(figure, handles, columns=5 if len(panels) > 1 else 3)
    return png(figure)


CURVES = {
    "copy": "training loss (nats)",
    "denoise": "training loss (nats)",
    "mnist": "validation accuracy",
    "ptb": "validation bits per character",
}


def _curve(axes: Any, run: SupervisedResult) -> Any:
    """Draw a run; None where it diverged before there was anything to draw."""
    shown = look(run.memory)
    if "epochs" in run.config:
        name = "bpc" if "bpc" in run.evaluations else "accuracy"
        scale = run.config["epochs"] / run.total
        x, y, marker = [scale * n for n in run.evaluations["steps"]], run.evaluations[name], "."
    else:
        # A run that ended before its first row of training has its evaluations still.
        curve = run.training if run.training["steps"] else run.evaluations
        x, y, marker = curve["steps"], curve["loss"], ""
    if not x:
        return None
    (line,) = axes.plot(
        x, y, color=shown.colour, ls=shown.style, lw=1.4, marker=marker, label=shown.title
    )
    if run.solved is not None:
        axes.plot(x[-1:], y[-1:], "o", color=shown.colour, markersize=5)
    if run.diverged is not None:
        axes.plot(x[-1:], y[-1:], "x", color=shown.colour, markersize=7)
    return line


def transfer_figure(view: View) -> bytes:
    """Accuracy at delays that were not trained at; a line for each run."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    handles: dict[str, Any] = {}
    delays: set[float] = set()
    for run in view.ordered:
        if run.transfer and run.validation is not None:
            shown = look(run.memory)
            points = [(run.config["T"], run.validation["accuracy"])]
            points += [(score["T"], score["accuracy"]) for score in run.transfer]
            x, y = zip(*sorted(points), strict=True)
            delays.update(x)
            # The first is broad, to be seen below those that lie on it.
            width, size = (1.4, 4) if handles else (5, 9)
            (handles[shown.title],) = axes.plot(
                x, y, color=shown.colour, ls=shown.style, lw=width, marker="o", markersize=size
            )
    handles["chance"] = axes.axhline(1 / N_SYMBOLS, color="0.5", lw=1, ls=(0, (1, 2)))
    axes.set_xscale("log")
    axes.set_xticks(sorted(delays), [f"{T:,}" for T in sorted(delays)])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("T of the score (the first: T of training)")
    axes.set_ylabel("accuracy")
    tidy(axes)
    legend(figure, handles, columns=3)
    return png(figure)
