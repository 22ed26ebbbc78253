"""The picture of a transfer report: mean rewards and intervals against the worlds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relagent.picture import COLOURS, png
from relagent.rl.report import LEVEL, short_name

if TYPE_CHECKING:
    from relagent.rl.report import Row


def transfer_figure(rows: Sequence[Row]) -> bytes:
    """Draw the rows, one panel for each training world, as the bytes of a PNG.

    A dot is a mean over seeds and its bar the interval; small dots are the single runs; a star is
    the paper's number.
    """
    # Figure itself, not pyplot: no global state and no display.
    from matplotlib.figure import Figure

    trained = list(dict.fromkeys(row.train for row in rows))
    panels = [[row for row in rows if row.train == train] for train in trained]
    widths = [len({row.world for row in panel}) for panel in panels]
    figure = Figure(
        figsize=(1.6 + sum(1.3 + 1.1 * width for width in widths), 4.2), layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=widths)[0]
    memories = list(dict.fromkeys(row.memory for row in rows))
    colours = {memory: COLOURS[i % len(COLOURS)] for i, memory in enumerate(memories)}
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, colours)
    axes[0].set_ylabel(f"mean reward, {LEVEL:.0%} interval")
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return png(figure, dpi=150)


def _draw(axis: Any, rows: Sequence[Row], colours: dict[str, str]) -> None:
    worlds = list(dict.fromkeys(row.world for row in rows))
    series = list(
        dict.fromkeys((row.memory, row.actions, row.steps, row.trained_on) for row in rows)
    )
    spread = min(0.16, 0.7 / len(series))
    for row in rows:
        place = series.index((row.memory, row.actions, row.steps, row.trained_on))
        x = worlds.index(row.world) + spread * (place - (len(series) - 1) / 2)
        colour = colours[row.memory]
        low, high = row.interval
        axis.vlines(x, low, high, color=colour, linewidth=2)
        if len(row.seeds) > 1:
            points = row.rewards.mean(axis=1)
            axis.scatter([x + 0.25 * spread] * len(points), points, s=8, color=colour, alpha=0.5)
        axis.plot(
            x,
            row.reward,
            "o",
            color=colour,
            markerfacecolor=colour if row.actions == "sampled" else "white",
            label=f"{row.memory}, {row.actions}",
        )
        if row.paper is not None:
            own = [i for i, (memory, *_) in enumerate(series) if memory == row.memory]
            axis.plot(
                x + spread * (sum(own) / len(own) - place),
                row.paper,
                "*",
                color=colour,
                markersize=11,
                markeredgecolor="black",
                markeredgewidth=0.6,
                label=f"{row.memory}, paper",
            )
    axis.set_xticks(range(len(worlds)), [_tick(world) for world in worlds])
    axis.set_xlim(-0.6, len(worlds) - 0.4)
    if all(row.rewards.min() >= 0 and row.rewards.max() <= 1 for row in rows):
        axis.set_ylim(-0.02, 1.04)
    axis.set_title(f"trained on {short_name(rows[0].train)}", fontsize="medium")
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _tick(world: str) -> str:
    """A world's name, broken so that neighbours do not touch."""
    return re.sub(r"-|(?<=[a-z])(?=[A-Z]\d)", "\n", short_name(world), count=1)
