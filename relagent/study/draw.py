"""What the figures of all studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from relagent.picture import png

GREY = "0.92"


def draw_table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    size: tuple[float, float],
    shade: Mapping[tuple[int, int], float],
) -> bytes:
    """Draw a table as a picture.

    Args:
        heading: of the columns.
        rows: texts, with line breaks.
        widths: of the columns, relative to each other.
        size: of the picture, in inches.
        shade: how dark a cell is, from 0 to 1, by its row and column.

    Returns:
        The bytes of a PNG.
    """
    figure = Figure(figsize=size)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.axis("off")
    table = axes.table(
        list(map(list, rows)),
        colLabels=list(heading),
        cellLoc="center",
        loc="center",
        bbox=Bbox.unit(),
        colWidths=list(widths),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("0.8")
        if row == 0:
            cell.set_text_props(weight="bold")
            cell.set_facecolor(GREY)
        elif (value := shade.get((row - 1, column))) is not None:
            cell.set_facecolor((1 - 0.45 * value, 1 - 0.18 * value, 1 - 0.08 * value))
    return png(figure)


def make_panels(count: int, *, sharey: bool = False) -> tuple[Figure, list[Any]]:
    """A figure of equal panels, up to three in a row, and two of four.

    Args:
        count: of panels.
        sharey: whether they have one vertical axis.

    Returns:
        The figure and its panels, row by row.
    """
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    width = 4.2 * columns if count > 1 else 6.4
    figure = Figure(figsize=(width, 0.9 + 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for unused in axes[count:]:
        unused.axis("off")
    return figure, list(axes[:count])


def legend(figure: Figure, handles: Mapping[str, Any], columns: int = 6) -> None:
    """Put one legend below all panels."""
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=columns,
            frameon=False,
        )  # fmt: skip


def tidy(axes: Any) -> None:
    """A light grid, and no box."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
