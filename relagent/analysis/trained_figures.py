"""Figures of trained models: what the paper shows of gradients and attention, measured again.

Each takes its settings, the folder of what is known of its models already, and a question whether
to stop, and returns the picture with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relagent.analysis.attention_map import attention_matrix, darkest, draw_attention
from relagent.analysis.draw import draw_curve
from relagent.analysis.findings import profile_of
from relagent.analysis.kept import is_known, measured, trained_if_it_can
from relagent.analysis.measures import attended_age, attention_entropy, look_back
from relagent.analysis.peak import peak_megabytes
from relagent.analysis.sequences import take_sequences
from relagent.analysis.trained import (
    Stop,
    TrainedConfig,
    final_accuracy,
    gradients_of,
    norms_of,
    run_of,
    untrained,
)
from relagent.looks import title
from relagent.memories.attention import Combine
from relagent.picture import COLOURS
from relagent.runs.config import ConfigError, option
from relagent.tasks.config import Nonlinearity, TaskConfig, settings_of
from relagent.tasks.run import LoadedModel


class Drawn(NamedTuple):
    """A figure, and the numbers in it as plain values."""

    figure: Figure
    numbers: dict[str, Any]


SIZES = (3, 8, 18, 25)
"""The values of ν and ρ in figure 3 of Kerg et al. 2020, where the other one is ``OTHER``."""
OTHER = 15


@dataclass(frozen=True, kw_only=True)
class Figure3Config(TrainedConfig):
    """Settings of :func:`figure3`."""

    memory: Literal["rel", "rel-rnn"] = option("rel", "Memory with relevancy screening.")
    only: tuple[str, ...] = option(
        (),
        "Train these models alone, and draw of the others what is known; none: all.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [f"{name}={size}" for name in ("rho", "nu") for size in SIZES]
        for name in self.only:
            if name not in known:
                raise ConfigError("only", name, f"it must be one of {', '.join(known)}")


def figure3(config: Figure3Config, kept: Path, stop: Stop) -> Drawn:
    """Denoise: ‖∇_{h_t} L‖ after training for ρ, then ν, in 3, 8, 18, 25 (the other one 15).

    A curve is that of the first seed whose training came to its end.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    numbers: dict[str, Any] = {}
    for axes, (name, other) in zip(panels, (("rho", "nu"), ("nu", "rho")), strict=True):
        for colour, size in zip(COLOURS, SIZES, strict=False):
            rows, drawn = [], False
            asked = not config.only or f"{name}={size}" in config.only
            for seed in range(config.seeds):
                options = {name: size, other: OTHER}
                model = config.settings("denoise", config.memory, seed, **options)
                if not asked and not is_known(model, kept):
                    continue
                found = measured(model, config, kept, stop)
                rows.append(found.row)
                if not drawn and found.profile is not None:
                    draw_curve(axes, found.profile.together, colour)
                    drawn = True
            greek = {"rho": "ρ", "nu": "ν"}
            outcomes = [outcome(row["accuracy"]) for row in rows] or ["not made"]
            label = f"{greek[name]} = {size} ({', '.join(outcomes)})"
            axes.plot([], [], color=colour, label=label)
            numbers[f"{name}={size}"] = rows
        axes.set_title(f"{greek[name]} varies, {greek[other]} = {OTHER}")
        _finish(axes)
        axes.legend(fontsize=8)
    panels[0].set_ylabel(f"‖∇ L‖ at h_t, root mean square over {config.sequences} sequences")
    verdict = figure3_verdict(numbers) if all(numbers.values()) else {}
    return Drawn(figure, {"models": numbers, **verdict})


def outcome(accuracy: float | None) -> str:
    """Say in a word or two how training ended: ``94% right``."""
    return "diverged" if accuracy is None else f"{100 * accuracy:.0f}% right"


def figure3_verdict(models: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Say whether figure 3's statement holds: unstable for ρ = 3, stable for the others, ν minor.

    Stability is measured by :attr:`Norms.span`, the powers of ten that 90% of the steps span, as
    the median over seeds; a model that diverged is the least stable of all.
    """

    def span(name: str) -> float:
        # A norm of exactly 0 spans infinitely many powers, which JSON writes as null.
        values = [np.inf if (v := row.get("span")) is None else v for row in models[name]]
        return float(np.median(values))

    rho, nu = ([span(f"{name}={size}") for size in SIZES] for name in ("rho", "nu"))
    return {
        "span": {"rho": _finite(rho), "nu": _finite(nu)},
        "rho_3_spans_most": rho[0] > max(rho[1:]),
        "nu_matters_less": max(nu) - min(nu) < max(rho) - min(rho),
    }


def _finite(values: list[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


COMPARED = ("rnn", "lstm", "mem-rnn", "mem", "sab", "rel-rnn", "rel")
"""The memories that are compared."""


@dataclass(frozen=True, kw_only=True)
class MemoriesConfig(TrainedConfig):
    """Settings of :func:`memories`."""

    task: Literal["copy", "denoise"] = option("denoise", "What is trained on.")
    nu: int = option(5, "Length ν of the short-term buffers.")
    rho: int = option(10, "Size ρ of the relevant sets.")
    combine: Combine | None = option(
        None,
        "How hidden state and context make the macro-state where there is attention to all or to "
        "relevant states; else as relagent.tasks has it.",
    )

    def __post_init__(self) -> None:
        """Check all models before the first is trained."""
        super().__post_init__()
        for memory in COMPARED:
            self.model(memory, 0)

    def model(self, memory: str, seed: int) -> TaskConfig:
        """Return the settings of one model."""
        options: dict[str, Any] = {"nu": self.nu, "rho": self.rho, "combine": self.combine}
        taken = settings_of(memory)
        own = {name: v for name, v in options.items() if name in taken and v is not None}
        return self.settings(self.task, memory, seed, **own)


def memories(config: MemoriesConfig, kept: Path, stop: Stop) -> Drawn:
    """One task, seven memories: ‖∇_{h_t} L‖ before and after training, side by side."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)  # before training, the sums of attention may explode
    numbers: dict[str, Any] = {}
    for colour, memory in zip(COLOURS, COMPARED, strict=True):
        rows = []
        for seed in range(config.seeds):
            model = config.model(memory, seed)
            after = measured(model, config, kept, stop)
            before = gradients_of(untrained(model), config.sequences)
            rows.append({**after.row, "untrained": norms_of(before).plain()})
            if seed == 0:
                label = f"{title(memory)} ({outcome(after.row['accuracy'])})"
                panels[1].plot([], [], color=colour, label=label)
                profiles = profile_of([before]), after.profile
                for axes, profile in zip(panels, profiles, strict=True):
                    if profile is not None:
                        draw_curve(axes, profile.median, colour)
        numbers[memory] = rows
    for axes, when in zip(panels, ("before training", "after training"), strict=True):
        axes.set_title(when)
        _finish(axes)
    panels[0].set_ylabel("‖∇ L‖ at h_t, median over sequences")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawn(figure, {"models": numbers})


def _finish(axes: Axes) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("steps before the end")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)


@dataclass(frozen=True, kw_only=True)
class TradeoffConfig(MemoriesConfig):
    """Settings of :func:`tradeoff`: the runs are those of :func:`memories`."""

    peak_batch: int = option(100, "Sequences in the batch whose pass is measured.")

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if self.peak_batch < 1:
            raise ConfigError("peak_batch", self.peak_batch, "it must be at least 1")


def tradeoff(config: TradeoffConfig, kept: Path, stop: Stop) -> Drawn:
    """The tradeoff of the title: how much gradient reaches the start, and its price in memory."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    numbers: dict[str, Any] = {}
    for colour, memory in zip(COLOURS, COMPARED, strict=True):
        models = [config.model(memory, seed) for seed in range(config.seeds)]
        rows = [measured(model, config, kept, stop).row for model in models]
        batch = replace(config.model(memory, 0), batch_size=config.peak_batch)
        kernel, plainly = (peak_megabytes(batch, definition=d) for d in (False, True))
        numbers[memory] = {
            "megabytes": kernel,
            "megabytes_of_definition": plainly,
            "models": rows,
        }
        # A memory that passes exactly nothing on has no place on a logarithmic axis.
        for row in rows:
            if not (row.get("first") and row["last"]):
                continue
            value = row["first"] / row["last"]
            axes.plot([kernel, plainly], [value] * 2, ":", lw=1, color=colour)
            axes.plot(kernel, value, "o", ms=9, color=colour)
            axes.plot(plainly, value, "o", ms=9, color=colour, mfc="w")
            place = (max(kernel, plainly), value)
            label = f"{title(memory)}, {outcome(row['accuracy'])}"
            axes.annotate(
                label, place, xytext=(7, 3), textcoords="offset points", color=colour, fontsize=8
            )
    axes.plot([], [], "o", color="0.3", label="as it is computed here (fused kernels)")
    axes.plot([], [], "o", color="0.3", mfc="w", label="by its definition")
    axes.legend(fontsize=8, loc="lower right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.4, 0.15)
    axes.grid(alpha=0.3)
    of = f"{config.T + 20} steps, batch of {config.peak_batch}"
    axes.set(
        xlabel=f"peak memory of a pass over {of} (MB)",
        ylabel="‖∇ L‖ at the first tenth of the steps\nover that at the last tenth",
        title=f"{config.task}, T = {config.T}, after training",
    )
    return Drawn(figure, {"models": numbers})


@dataclass(frozen=True, kw_only=True)
class HeatmapsConfig(TrainedConfig):
    """Settings of :func:`heatmaps`."""

    # With modReLU, which is not bounded, the buffer alone diverges: each state is added to the sum
    # of those it was made from.
    nonlinearity: Nonlinearity = option("tanh", "Of RelRNN.")
    nu: int = option(10, "Length ν of the short-term buffer.")
    rho: int = option(10, "Size ρ of the relevant set of the full mechanism.")
    epochs: int = option(1, "Passes over the data of mnist and ptb.")
    tasks: tuple[Literal["ptb", "mnist", "copy", "denoise"], ...] = option(
        ("ptb", "mnist", "copy", "denoise"), "Tasks, in this order."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ConfigError("tasks", self.tasks, "name at least one")
        for task in self.tasks:
            self.model(task, self.rho)

    def model(self, task: str, rho: int) -> TaskConfig:
        """Return the settings of one model: 7 pixels of MNIST make a step, as in the paper."""
        options: dict[str, Any] = {"nu": self.nu, "rho": rho, "nonlinearity": self.nonlinearity}
        if task in ("ptb", "mnist"):
            options["epochs"] = self.epochs
        if task == "mnist":
            options["group"] = 7
        return self.settings(task, "rel-rnn", 0, **options)


def heatmaps(config: HeatmapsConfig, kept: Path, stop: Stop) -> Drawn:
    """RelRNN's attention along a sequence: the full mechanism, and the short-term buffer alone.

    Figures 7 and 9-11 of the paper.
    """
    columns = len(config.tasks)
    figure = Figure(figsize=(4.2 * columns, 8.2), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    numbers: dict[str, Any] = {}
    for column, task in zip(panels.T, config.tasks, strict=True):
        for axes, rho in zip(column, (config.rho, 0), strict=True):
            model = config.model(task, rho)
            loaded = trained_if_it_can(model, config, stop)
            score, found = None, {}
            if isinstance(loaded, LoadedModel):
                score = final_accuracy(run_of(model, Path(config.runs)))
                found = _draw_heatmap(loaded, axes)
            axes.set_title(f"{task}, ν = {config.nu}, ρ = {rho}: {outcome(score)}")
            numbers[f"{task} rho={rho}"] = {"accuracy": score, **found}
    return Drawn(figure, {"models": numbers})


def _draw_heatmap(loaded: LoadedModel, axes: Axes) -> dict[str, float]:
    taken = take_sequences(loaded, 1)
    look = look_back(taken.memory, taken.x)
    assert look is not None, "the memories of heatmaps can tell"
    matrix = attention_matrix(look.weights[:, 0], look.ages[:, 0])
    image = draw_attention(matrix, axes, most=darkest(matrix))
    cast(Figure, axes.figure).colorbar(image, ax=axes, shrink=0.7, extend="max")
    return {
        "attention_entropy": float(attention_entropy(look).mean()),
        "attended_age": float(attended_age(look).mean()),
    }


TRAINED_FIGURES: dict[str, tuple[type[TrainedConfig], Callable[[Any, Path, Stop], Drawn]]] = {
    "figure3": (Figure3Config, figure3),
    "memories": (MemoriesConfig, memories),
    "tradeoff": (TradeoffConfig, tradeoff),
    "heatmaps": (HeatmapsConfig, heatmaps),
}
"""Every figure of trained models, with its settings."""
