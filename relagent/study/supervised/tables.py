"""The tables of a supervised report, as rows of texts and of numbers."""

from __future__ import annotations

from typing import Any

from relagent.looks import title
from relagent.study.supervised.grid import PAPER_COPY
from relagent.study.supervised.result import SupervisedResult
from relagent.study.supervised.view import View, variant_title, with_forms
from relagent.table import NOTHING

Rows = tuple[list[str], list[list[str]]]


def main_table(view: View, bold: tuple[str, str] = ("**", "**"), line: str = "<br>") -> Rows:
    """What each memory reaches: a row for each form of the task, a column for each memory.

    Args:
        view: the results.
        bold: goes around what is solved.
        line: separates seeds, and the paper's number.

    Returns:
        The heading and the rows; a cell without a result holds the paper's number or nothing.
    """
    heading = ["task", *map(title, view.memories)]
    rows = []
    for name in view.rows:
        row = [variant_title(name)]
        for memory in view.memories:
            texts = [_reached(run, bold) for run in view.runs(name, memory)]
            paper = paper_number(view.study, name, memory)
            row.append(line.join([*texts, *([f"paper {paper}"] if paper else [])]))
        rows.append(row)
    return heading, rows


def paper_number(study: str, variant_name: str, memory: str) -> str | None:
    """What the paper reports of a cell, None where it reports nothing."""
    if study != "copy":
        return None
    return PAPER_COPY.get(memory, {}).get(int(variant_name[1:]))


def _reached(run: SupervisedResult, bold: tuple[str, str]) -> str:
    if run.validation is None or run.best is None:
        return f"diverged at {run.diverged:,}, no score"
    if run.test is not None:
        score = f"{run.test['bpc']:.3f} bpc" if "bpc" in run.test else percent(run.test["accuracy"])
        epochs = run.config["epochs"]
        text = f"{score}, epoch {round(run.best['updates'] * epochs / run.total)} of {epochs}"
        return text if run.diverged is None else f"{text}, diverged at {run.diverged:,}"
    accuracy = percent(run.validation["accuracy"])
    if run.solved is not None:
        return f"{bold[0]}{accuracy}{bold[1]}, solved at {run.solved:,}"
    if run.diverged is not None:
        best = percent(run.best["accuracy"])
        before = "" if best == accuracy else f" (best: {best})"
        return f"{accuracy}{before}, diverged at {run.diverged:,}"
    return f"{accuracy}, unsolved in {run.updates:,}"


def run_table(view: View) -> Rows:
    """Every run: what it took."""
    heading = ["task", "memory", "seed", "solved at", "updates", "minutes", "updates/s"]
    heading += ["on", "peak memory, MB", "parameters"]
    rows = [
        [
            variant_title(row["task"]),
            title(row["memory"]),
            str(row["seed"]),
            NOTHING if row["solved"] is None else f"{row['solved']:,}",
            f"{row['updates']:,}",
            f"{row['seconds'] / 60:.1f}",
            f"{row['updates'] / row['seconds']:.1f}" if row["seconds"] else NOTHING,
            row["device"],
            f"{row['peak_megabytes']:,.0f}",
            f"{row['parameters']:,}",
        ]
        for row in number_rows(view)
    ]
    return heading, rows


def _device(run: SupervisedResult) -> str:
    """What computed it: ``CPU``, ``GPU``, or ``GPU, then CPU`` where it was resumed elsewhere."""
    first = str(run.provenance.get("training", {}).get("device", ""))
    began = "GPU" if first.startswith("cuda") else "CPU"
    ended = "CPU" if run.peak_memory["of"] == "process" else "GPU"
    return ended if began == ended else f"{began}, then {ended}"


def number_rows(view: View) -> list[dict[str, Any]]:
    """One row a run, for the CSV file."""
    return [
        {
            "task": name,
            "memory": run.memory,
            "seed": run.seed,
            **{name: (run.score or {}).get(name) for name in ("accuracy", "loss", "bpc")},
            "split": "validation" if run.test is None else "test",
            "paper": paper_number(view.study, name, run.memory),
            "solved": run.solved,
            "best_validation_accuracy": (run.best or {}).get("accuracy"),
            "best_update": (run.best or {}).get("updates"),
            "diverged": run.diverged,
            "updates": run.updates,
            "budget": run.config.get("updates", run.config.get("epochs")),
            "seconds": run.seconds,
            "device": _device(run),
            "peak_megabytes": round(run.peak_memory["bytes"] / 1e6, 1),
            "parameters": run.parameters,
            **{f"transfer_T{score['T']}": score["accuracy"] for score in run.transfer},
        }
        for name in view.variants
        for memory in view.memories
        for run in view.runs(name, memory)
    ]


def transfer_table(view: View) -> Rows:
    """Accuracy of trained models at other delays, and the number of sequences."""
    runs = [run for run in view.ordered if run.transfer]
    delays = sorted({score["T"] for run in runs for score in run.transfer})
    heading = ["trained at", "memory", "seed", *(f"T = {T:,}" for T in delays)]
    rows = []
    for run in runs:
        found = {score["T"]: score for score in run.transfer}
        cells = [
            f"{percent(found[T]['accuracy'])} ({found[T]['sequences']:,})"
            if T in found else NOTHING
            for T in delays
        ]  # fmt: skip
        rows.append([f"T = {run.config['T']:,}", title(run.memory), str(run.seed), *cells])
    return heading, rows


SETTINGS = {
    "hidden_size": "hidden size",
    "optimizer": "optimiser",
    "learning_rate": "learning rate",
    "orthogonal_learning_rate": "of the rotation",
    "nonlinearity": "nonlinearity",
    "nu": "ν",
    "rho": "ρ",
    "combine": "macro-state",
}
"""Settings that are a memory's own, and their headings."""


def settings_table(view: View) -> Rows:
    """The settings of each memory: a row for each that it was run with, and where."""

    def values(run: SupervisedResult) -> tuple[str, ...]:
        own = (run.config[name] for name in SETTINGS)
        return tuple(NOTHING if value is None else str(value) for value in own)

    rows = [
        [title(memory) + forms, *texts]
        for memory in view.memories
        for texts, forms in with_forms(
            [run for run in view.ordered if run.memory == memory], values
        ).items()
    ]
    return ["memory", *SETTINGS.values()], rows


def percent(share: float) -> str:
    """``100%`` only where it is all."""
    return f"{100 * share:.0f}%" if share == 1 else f"{min(100 * share, 99.99):.2f}%"
