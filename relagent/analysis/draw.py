"""The pictures of an analysed run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from relagent.analysis.attention_map import attention_matrix, darkest, draw_attention
from relagent.analysis.episode import Episode
from relagent.analysis.findings import Findings, Profile
from relagent.analysis.measures import Paths
from relagent.picture import COLOURS

TOTAL, RECURRENCE, SHARE, *_ = COLOURS
SHOWN_STEPS = 5


def attention_figure(findings: Findings, title: str) -> Figure:
    """What the first sequence's steps attended to."""
    look = findings.sights[0].look
    assert look is not None, "ask only where findings.traced"
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    matrix = attention_matrix(look.weights[:, 0], look.ages[:, 0])
    image = draw_attention(matrix, axes, title, most=darkest(matrix))
    figure.colorbar(image, ax=axes, label="attention weight", extend="max")
    return figure


def gradient_figure(findings: Findings, title: str) -> Figure:
    """‖∇_{h_t} L‖ against the distance from the end, and how much of it came through attention."""
    count = 2 if findings.attends else 1
    figure = Figure(figsize=(7.2, 2.2 + 1.9 * count), layout="constrained")
    ratios = (2.2, 1)[:count]
    panels = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    curves = findings.curves
    draw_profile(panels[0], curves["total"], TOTAL, "‖∇ L‖")
    if findings.attends:
        draw_profile(panels[0], curves["recurrence"], RECURRENCE, "through the recurrence alone")
        draw_profile(panels[1], curves["share"], SHARE)
        panels[1].set(ylabel="share through\nattention", ylim=(-0.02, 1.02))
    panels[0].set_yscale("log", nonpositive="mask")
    panels[0].set(ylabel="gradient norm", title=title)
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("steps before the end")
    steps = len(curves["total"].median)
    panels[-1].set_xlim(1.05 * steps - 1, -0.05 * steps)
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure


def draw_profile(axes: Axes, profile: Profile, colour: str, label: str = "") -> None:
    """Draw a median and the band between the quartiles; what is 0 is left out."""
    low, high = (np.where(part > 0, part, np.nan) for part in (profile.low, profile.high))
    axes.fill_between(np.arange(len(low)), low, high, color=colour, alpha=0.2, lw=0)
    draw_curve(axes, profile.median, colour, label)


def draw_curve(axes: Axes, values: NDArray[np.float64], colour: str, label: str = "") -> None:
    """Draw a quantity against the steps before the end; what is 0 is left out."""
    steps = len(values)
    axes.plot(
        np.arange(steps),
        np.where(values > 0, values, np.nan),
        color=colour,
        marker=_marker(values, most=30),
        lw=1.4 if steps <= 300 else 0.9,
        label=label,
    )


def _marker(values: NDArray[np.float64], most: int) -> str:
    """Dots where a line alone would hardly be seen: at no more than that many values above 0."""
    return "." if np.count_nonzero(values > 0) <= most else ""


def depth_figure(findings: Findings, title: str) -> Figure:
    """How few recurrent factors lie between the last step and the earlier ones: their shares."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    lengths = [len(sight.paths.total) for sight in findings.sights]
    plain = np.bincount(np.concatenate([np.arange(length) for length in lengths]))
    kinds = (
        (findings.depths(noticed=False), f"all that is remembered (κ = {findings.kappa})", TOTAL),
        (findings.depths(noticed=True), "what gets an equal share or more", RECURRENCE),
        (plain, "without attention", "0.5"),
    )
    longest = max(lengths)
    for counts, label, colour in kinds:
        within = np.cumsum(counts) / counts.sum()
        reach = np.append(within, [1.0] * (longest - len(within)))
        axes.step(np.arange(longest), reach, where="post", color=colour, label=label)
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="dependency depth d", ylabel="share of steps t within d", title=title)
    axes.set_ylim(0, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def choice_figure(
    episode: Episode, steps: list[int], norms: NDArray[np.float64], paths: Paths, title: str
) -> Figure:
    """Which steps of an episode each of its actions depends on.

    Args:
        episode: of T steps.
        steps: [R] of the actions.
        norms: [R, T] of :func:`relagent.analysis.episode.choice_gradients`.
        paths: of the last action.
        title: above the picture.
    """
    length = len(episode.actions)
    best = _most_important(paths.total[:, 0].cpu().numpy()) if episode.pictures else []
    figure = Figure(figsize=(10, 5.2 + 2.0 * bool(best)), layout="constrained")
    figure.suptitle(title)
    parts: Any = figure.subfigures(2, 1, height_ratios=(5, 2)) if best else [figure]
    grid = parts[0].add_gridspec(2, 2, width_ratios=(1.1, 1), height_ratios=(2.2, 1))
    matrix = parts[0].add_subplot(grid[:, 0])
    curve = parts[0].add_subplot(grid[0, 1])
    strip = parts[0].add_subplot(grid[1, 1], sharex=curve)

    _draw_choices(parts[0], matrix, steps, norms)
    now = np.arange(length)
    norms_now = _positive(paths.total[:, 0])
    marker = _marker(norms_now, most=60)
    curve.plot(now, norms_now, color=TOTAL, marker=marker, label="‖∇ log π‖")
    if paths.attention.any():
        alone = _positive(paths.recurrence[:, 0])
        curve.plot(now, alone, "--", color=RECURRENCE, label="through the recurrence alone")
    curve.set_yscale("log", nonpositive="mask")
    curve.set(title="the last action", ylabel="gradient norm")
    curve.legend(fontsize=8)
    curve.grid(alpha=0.3)
    used = sorted(set(episode.actions))
    strip.plot(now, [used.index(action) for action in episode.actions], "s", ms=3, color="0.3")
    strip.set_yticks(range(len(used)), [episode.names[action] for action in used])
    strip.set_ylim(-0.6, len(used) - 0.4)
    strip.set(xlabel="step", ylabel="action")
    strip.xaxis.set_major_locator(MaxNLocator(integer=True))
    strip.grid(alpha=0.3)
    if best:
        _draw_pictures(parts[1], episode, best, paths)
    return figure


def _draw_choices(figure: Any, axes: Axes, steps: list[int], norms: NDArray[np.float64]) -> None:
    positive = norms[norms > 0]
    top = positive.max() if positive.size else 1.0
    # Six powers of ten: below, a gradient teaches nothing, and the colours are for the rest.
    scale = LogNorm(max(top * 1e-6, positive.min() if positive.size else 1e-6), top * 1.0001)
    # Actions may have been left out of a long episode: every row is as high as its gap.
    between = (np.array(steps[1:]) + np.array(steps[:-1])) / 2
    edges = np.concatenate([[steps[0] - 0.5], between, [steps[-1] + 0.5]])
    image = axes.pcolormesh(
        np.arange(norms.shape[1] + 1) - 0.5, edges, norms, cmap="viridis", norm=scale
    )
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor("0.92")
    axes.set(xlabel="remembered step t", ylabel="action at step T", title="‖∇ log π(a_T)‖ at h_t")
    figure.colorbar(image, ax=axes)


def _most_important(norms: NDArray[np.float64]) -> list[int]:
    """The last step, and those before it that its gradient is largest at, if there is any."""
    order = np.argsort(-norms[:-1], kind="stable")[: SHOWN_STEPS - 1]
    return sorted({*(int(step) for step in order if norms[step] > 0), len(norms) - 1})


def _draw_pictures(figure: Any, episode: Episode, steps: list[int], paths: Paths) -> None:
    panels = figure.subplots(1, len(steps), squeeze=False)[0]
    for axes, step in zip(panels, steps, strict=True):
        axes.imshow(episode.pictures[step])
        axes.axis("off")
        norm = float(paths.total[step, 0])
        name = episode.names[episode.actions[step]]
        axes.set_title(f"step {step}: {name}\n{norm:.2g}", fontsize=8)


def _positive(values: torch.Tensor) -> NDArray[np.float64]:
    array = values.double().cpu().numpy()
    return np.where(array > 0, array, np.nan)
