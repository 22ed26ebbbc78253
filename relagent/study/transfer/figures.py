"""The figures of the report, each as the bytes of a PNG."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relagent.looks import in_order, title
from relagent.memories import MEMORIES
from relagent.picture import COLOURS, png
from relagent.rl.report import short_name
from relagent.study.draw import draw_table, legend, make_panels, tidy
from relagent.study.transfer.aggregate import Estimate, estimate_profile
from relagent.study.transfer.tables import table_rows
from relagent.study.transfer.view import ROLES, View, paper_numbers, size_of

MARKERS = "osD^vPX"
FIRST = ("rel", "mem", "lstm", "none")
"""The memories of the study's tables have the first colours and markers: their bands overlap."""
ROLE_TITLES = {"train": "training worlds", "test": "larger worlds, zero-shot"}


def colour(memory: str) -> str:
    """A memory's colour, the same in all figures."""
    return COLOURS[_place(memory) % len(COLOURS)]


def marker(memory: str) -> str:
    """A memory's marker, the same in all figures; two of one colour have different ones."""
    place = _place(memory)
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def _place(memory: str) -> int:
    return [*FIRST, *(name for name in in_order(MEMORIES) if name not in FIRST)].index(memory)


def table_figure(view: View, protocol: str) -> bytes:
    """The table as a picture: a cell is the darker the higher its reward."""
    heading, rows = table_rows(view, protocol, bold=("", ""))
    heading = [text.replace(", ", ",\n") for text in heading]
    texts = [[cell.replace("<br>", "\n") for cell in row] for row in rows]
    shade = {
        (row, column): value
        for row, line in enumerate(texts)
        for column, text in enumerate(line)
        if column >= 1 and (value := _first_number(text)) is not None
    }
    widths = [1.2, *[0.55] * 2, *[1.2] * (len(heading) - 3)]
    size = (1.2 + 1.75 * len(heading), 0.6 + 0.5 * len(rows))
    return draw_table(heading, texts, widths, size, shade)


def _first_number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def curves_figure(view: View, protocol: str) -> bytes:
    """Training reward against steps: the mean over seeds, in a band from lowest to highest."""
    pairs = view.pairs(protocol)
    figure, panels = make_panels(len(pairs), sharey=True)
    for axes, pair in zip(panels, pairs, strict=True):
        for memory in view.memories(protocol):
            runs = [r for r in view.runs(protocol, pair.name, memory) if r.curve["steps"]]
            if not runs:
                continue
            steps = np.linspace(
                max(run.curve["steps"][0] for run in runs),
                min(run.curve["steps"][-1] for run in runs),
                200,
            )
            rewards = np.stack(
                [np.interp(steps, run.curve["steps"], run.curve["reward"]) for run in runs]
            )
            shade = colour(memory)
            axes.fill_between(
                steps / 1e6, rewards.min(axis=0), rewards.max(axis=0), color=shade, alpha=0.18, lw=0
            )
            axes.plot(steps / 1e6, rewards.mean(axis=0), color=shade, lw=1.6, label=title(memory))
        axes.set_title(short_name(pair.train_id), fontsize="medium")
        axes.set_xlabel("million steps")
    return _finish(figure, panels, "reward (last 100 episodes)")


def transfer_figure(view: View, protocol: str) -> bytes:
    """Reward in every size of each family: mean and interval over seeds, each seed, the paper."""
    pairs = view.pairs(protocol)
    figure, panels = make_panels(len(pairs), sharey=True)
    for axes, pair in zip(panels, pairs, strict=True):
        memories = view.memories(protocol)
        for place, memory in enumerate(memories):
            # Memories stand side by side; the panels are equally wide for any number of worlds.
            shift = 0.03 * len(pair.ladder) * (place - (len(memories) - 1) / 2)
            cells = [
                (x, cell)
                for x, world in enumerate(pair.ladder)
                if (cell := view.cell(protocol, pair, memory, world)) is not None
            ]
            if not cells:
                continue
            shade = colour(memory)
            axes.errorbar(
                [x + shift for x, _ in cells],
                [cell.mean.value for _, cell in cells],
                yerr=np.array([_arms(c.mean) for _, c in cells]).T,
                fmt=f"-{marker(memory)}",
                color=shade,
                markersize=5,
                lw=1,
                label=_with_seeds(view, protocol, memory),
            )
            for x, cell in cells:
                if cell.several:
                    places = [x + shift] * len(cell.scores)
                    axes.plot(places, cell.scores, "o", color=shade, markersize=2.5, alpha=0.5)
        for x, world in enumerate(pair.ladder):
            for memory in ("mem", "rel"):
                number = paper_numbers(pair, world)[f"paper_{memory}"]
                if number is not None:
                    axes.plot(
                        [x], [number], "*", color=colour(memory), markeredgecolor="black",
                        markeredgewidth=0.5, markersize=9, label=f"{title(memory)}, paper",
                    )  # fmt: skip
        axes.set_xticks(range(len(pair.ladder)), [size_of(w) for w in pair.ladder], rotation=20)
        axes.set_title(f"trained on {short_name(pair.train_id)}", fontsize="medium")
    return _finish(figure, panels, "reward")


def _with_seeds(view: View, protocol: str, memory: str) -> str:
    """``RelLSTM (3 seeds)``, or ``(1 to 3 seeds)`` where pairs differ."""
    runs = [len(view.runs(protocol, pair.name, memory)) for pair in view.pairs(protocol)]
    counts = sorted({count for count in runs if count})
    number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{title(memory)} ({number} seed{'s' if counts[-1] > 1 else ''})"


def aggregate_figure(view: View) -> bytes:
    """Interquartile mean of each memory, with its interval, by protocol and role."""
    lines = [(p, memory) for p in view.protocols for memory in view.compared(p)[0]]
    figure = Figure(figsize=(9, 1.2 + 0.38 * len(lines)), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, role in zip(panels, ROLES, strict=True):
        for y, (protocol, memory) in enumerate(lines):
            found = view.iqm(protocol, role).get(memory)
            if found is not None:
                estimate, _ = found
                axes.errorbar(
                    [estimate.value], [y], xerr=np.array([_arms(estimate)]).T,
                    fmt=marker(memory), color=colour(memory), capsize=3,
                )  # fmt: skip
        axes.set_title(ROLE_TITLES[role], fontsize="medium")
        axes.set_xlabel("interquartile mean of the reward")
        axes.margins(0.08, 0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(lines)), [f"{title(m)}, protocol {p}" for p, m in lines])
    panels[0].invert_yaxis()
    return png(figure)


def profile_figure(view: View) -> bytes:
    """Performance profiles: the share of runs that score more than τ."""
    rows = len(view.protocols)
    figure = Figure(figsize=(9, 0.6 + 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
    lowest = min(
        float(table.min())
        for protocol in view.protocols
        for role in ROLES
        for table in view.matrices(protocol, role).values()
    )
    thresholds = np.linspace(np.floor(10 * lowest) / 10, 1, 201)
    handles: dict[str, Any] = {}
    for row, protocol in zip(panels, view.protocols, strict=True):
        for axes, role in zip(row, ROLES, strict=True):
            for memory, table in view.matrices(protocol, role).items():
                shares, low, high = estimate_profile(table, thresholds)
                shade = colour(memory)
                (line,) = axes.plot(thresholds, shares, color=shade, lw=1.6)
                if len(table) > 1:
                    axes.fill_between(thresholds, low, high, color=shade, alpha=0.15, lw=0)
                handles[title(memory)] = line
            axes.set_title(f"{protocol}: {ROLE_TITLES[role]}", fontsize="medium")
            axes.set_xlabel("τ (reward)")
            axes.set_ylabel("share of runs above τ")
            tidy(axes)
    legend(figure, handles)
    return png(figure)


def _finish(figure: Figure, panels: list[Any], label: str) -> bytes:
    handles: dict[str, Any] = {}
    for axes in panels:
        axes.set_ylim(-0.02, 1.02)
        tidy(axes)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(label)
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    legend(figure, handles)
    return png(figure)


def _arms(estimate: Estimate) -> tuple[float, float]:
    # The interquartile mean need not lie inside the percentiles of its resamples.
    value, low, high = estimate
    return max(0.0, value - low), max(0.0, high - value)
