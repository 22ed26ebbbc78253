"""Figures of trained models: what the paper shows of gradients and attention, measured again.

Each takes its settings and a question whether to stop, and returns the picture with its numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relagent.analysis.attention_map import attention_matrix, darkest, draw_attention
from relagent.analysis.draw import draw_profile
from relagent.analysis.findings import Findings, Profile
from relagent.analysis.measures import attended_age, attention_entropy, look_back
from relagent.analysis.peak import peak_megabytes
from relagent.analysis.sequences import take_sequences
from relagent.analysis.trained import (
    Norms,
    Stop,
    TrainedConfig,
    final_accuracy,
    gradients_of,
    norms_of,
    run_of,
    trained,
    untrained,
)
from relagent.rl.figure import COLOURS
from relagent.runs.config import ConfigError, option
from relagent.tasks.config import TaskConfig
from relagent.tasks.run import LoadedModel
from relagent.tasks.train import DivergenceError


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

    memory: str = option("rel", "Memory with relevancy screening.", choices=("rel", "rel-rnn"))


def figure3(config: Figure3Config, stop: Stop) -> Drawn:
    """Denoise: ‖∇_{h_t} L‖ after training for ρ, then ν, in 3, 8, 18, 25 (the other one 15)."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    numbers: dict[str, Any] = {}
    for axes, (name, other) in zip(panels, (("rho", "nu"), ("nu", "rho")), strict=True):
        for colour, size in zip(COLOURS, SIZES, strict=False):
            rows = []
            for seed in range(config.seeds):
                options = {name: size, other: OTHER}
                model = config.settings("denoise", config.memory, seed, **options)
                row, findings = measured(model, config, stop)
                rows.append(row)
                if seed == 0 and findings is not None:
                    draw_profile(axes, findings.profile(lambda paths: paths.total), colour)
            greek = {"rho": "ρ", "nu": "ν"}
            found = [outcome(row["accuracy"]) for row in rows]
            label = f"{greek[name]} = {size} ({', '.join(found)})"
            axes.plot([], [], color=colour, label=label)
            numbers[f"{name}={size}"] = rows
        axes.set_title(f"{greek[name]} varies, {greek[other]} = {OTHER}")
        _finish(axes)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("‖∇ L‖ at h_t")
    return Drawn(figure, {"models": numbers, **figure3_verdict(numbers)})


class Measured(NamedTuple):
    """A model of a figure: its numbers, and its gradients unless its training diverged."""

    row: dict[str, Any]
    findings: Findings | None


def measured(model: TaskConfig, config: TrainedConfig, stop: Stop) -> Measured:
    """Train or load a model and measure its gradients."""
    loaded = _trained(model, config, stop)
    if loaded is None:
        return Measured({"seed": model.seed, "accuracy": None}, None)
    findings = gradients_of(loaded, config.sequences)
    accuracy = final_accuracy(run_of(model, Path(config.runs)))
    row = {"seed": model.seed, "accuracy": accuracy, **plain(norms_of(findings))}
    return Measured(row, findings)


def _trained(model: TaskConfig, config: TrainedConfig, stop: Stop) -> LoadedModel | None:
    """Train or load a model; ``None``, and a line that says so, where training diverges."""
    try:
        return trained(model, Path(config.runs), stop)
    except DivergenceError as error:
        print(error, file=sys.stderr)
        return None


def outcome(accuracy: float | None) -> str:
    """Say in a word or two how training ended: ``94% right``."""
    return "diverged" if accuracy is None else f"{100 * accuracy:.0f}% right"


def figure3_verdict(models: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Say whether figure 3's statement holds: unstable for ρ = 3, stable for the others, ν minor.

    Stability is measured by :attr:`Norms.decades`, the powers of ten that 90% of the norms span,
    as the median over seeds; a model that diverged is the least stable of all.
    """

    def span(name: str) -> float:
        # A norm of exactly 0 spans infinitely many powers, which JSON writes as null.
        values = [np.inf if (v := row.get("decades")) is None else v for row in models[name]]
        return float(np.median(values))

    rho, nu = ([span(f"{name}={size}") for size in SIZES] for name in ("rho", "nu"))
    return {
        "decades": {"rho": _finite(rho), "nu": _finite(nu)},
        "rho_3_spans_most": rho[0] > max(rho[1:]),
        "nu_matters_less": max(nu) - min(nu) < max(rho) - min(rho),
    }


def _finite(values: list[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def plain(norms: Norms) -> dict[str, float | None]:
    """Return norms as JSON takes them: what is infinite is null."""
    return {name: v if np.isfinite(v) else None for name, v in norms._asdict().items()}


NAMES = {
    "rnn": "RNN",
    "lstm": "LSTM",
    "mem-rnn": "MemRNN",
    "mem": "MemLSTM",
    "sab": "SAB",
    "rel-rnn": "RelRNN",
    "rel": "RelLSTM",
}
"""The memories that are compared, by their names in the paper."""


@dataclass(frozen=True, kw_only=True)
class MemoriesConfig(TrainedConfig):
    """Settings of :func:`memories`."""

    task: str = option("denoise", "What is trained on.", choices=("copy", "denoise"))
    nu: int = option(5, "Length ν of the short-term buffers.")
    rho: int = option(10, "Size ρ of the relevant sets.")

    def model(self, memory: str, seed: int) -> TaskConfig:
        """Return the settings of one model."""
        sizes = {"nu": self.nu, "rho": self.rho} if memory.startswith("rel") else {}
        return self.settings(self.task, memory, seed, **sizes)


def memories(config: MemoriesConfig, stop: Stop) -> Drawn:
    """One task, seven memories: ‖∇_{h_t} L‖ before and after training, side by side."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)  # before training, the sums of attention may explode
    numbers: dict[str, Any] = {}
    for colour, (memory, name) in zip(COLOURS, NAMES.items(), strict=True):
        rows = []
        for seed in range(config.seeds):
            model = config.model(memory, seed)
            row, after = measured(model, config, stop)
            before = gradients_of(untrained(model), config.sequences)
            rows.append({**row, "untrained": plain(norms_of(before))})
            if seed == 0:
                panels[1].plot([], [], color=colour, label=f"{name} ({outcome(row['accuracy'])})")
                for axes, found in zip(panels, (before, after), strict=True):
                    if found is not None:
                        _draw_median(axes, found.profile(lambda paths: paths.total), colour)
        numbers[memory] = rows
    for axes, title in zip(panels, ("before training", "after training"), strict=True):
        axes.set_title(title)
        _finish(axes)
    panels[0].set_ylabel("‖∇ L‖ at h_t, median over sequences")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawn(figure, {"models": numbers})


def _draw_median(axes: Axes, profile: Profile, colour: str) -> None:
    draw_profile(axes, Profile(profile.median, profile.median, profile.median), colour)


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


def tradeoff(config: TradeoffConfig, stop: Stop) -> Drawn:
    """The tradeoff of the title: how much gradient reaches the start, and its price in memory."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    numbers: dict[str, Any] = {}
    for colour, (memory, name) in zip(COLOURS, NAMES.items(), strict=True):
        rows = [measured(config.model(memory, s), config, stop).row for s in range(config.seeds)]
        batch = replace(config.model(memory, 0), batch_size=config.peak_batch)
        kernel, plainly = (peak_megabytes(batch, definition=d) for d in (False, True))
        numbers[memory] = {
            "megabytes": kernel,
            "megabytes_of_definition": plainly,
            "models": rows,
        }
        # A memory that passes exactly nothing on has no place on a logarithmic axis.
        reach = [row["first"] / row["last"] for row in rows if row.get("first") and row["last"]]
        for value in reach:
            axes.plot([kernel, plainly], [value] * 2, ":", lw=1, color=colour)
            axes.plot(kernel, value, "o", ms=9, color=colour)
            axes.plot(plainly, value, "o", ms=9, color=colour, mfc="w")
            place = (max(kernel, plainly), value)
            label = f"{name}\n{outcome(rows[0]['accuracy'])}"
            axes.annotate(
                label, place, xytext=(9, -8), textcoords="offset points", color=colour, fontsize=8
            )
    axes.plot([], [], "o", color="0.3", label="as it is computed here (fused kernels)")
    axes.plot([], [], "o", color="0.3", mfc="w", label="by its definition")
    axes.legend(fontsize=8, loc="lower right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.2, 0.15)
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
    nonlinearity: str = option("tanh", "Of RelRNN.", choices=("tanh", "relu", "modrelu"))
    nu: int = option(10, "Length ν of the short-term buffer.")
    rho: int = option(10, "Size ρ of the relevant set of the full mechanism.")
    epochs: int = option(1, "Passes over the data of mnist and ptb.")
    tasks: tuple[str, ...] = option(
        ("ptb", "mnist", "copy", "denoise"), "Tasks, in this order.",
        choices=("ptb", "mnist", "copy", "denoise"),
    )  # fmt: skip

    def model(self, task: str, rho: int) -> TaskConfig:
        """Return the settings of one model: 7 pixels of MNIST make a step, as in the paper."""
        options: dict[str, Any] = {"nu": self.nu, "rho": rho, "nonlinearity": self.nonlinearity}
        if task in ("ptb", "mnist"):
            options["epochs"] = self.epochs
        if task == "mnist":
            options["group"] = 7
        return self.settings(task, "rel-rnn", 0, **options)


def heatmaps(config: HeatmapsConfig, stop: Stop) -> Drawn:
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
            loaded = _trained(model, config, stop)
            score, found = None, {}
            if loaded is not None:
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


TRAINED_FIGURES: dict[str, tuple[type[TrainedConfig], Callable[[Any, Stop], Drawn]]] = {
    "figure3": (Figure3Config, figure3),
    "memories": (MemoriesConfig, memories),
    "tradeoff": (TradeoffConfig, tradeoff),
    "heatmaps": (HeatmapsConfig, heatmaps),
}
"""Every figure of trained models, with its settings."""
