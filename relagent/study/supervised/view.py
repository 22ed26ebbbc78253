"""The results of a supervised study in the order and in the words in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar

from relagent.looks import in_order
from relagent.study.report import ReportError
from relagent.study.supervised.grid import GRIDS, PAPER_COPY
from relagent.study.supervised.result import SupervisedResult
from relagent.study.supervised.task import SupervisedTask, variant
from relagent.tasks.config import GeneratedConfig
from relagent.tasks.defaults import TASKS, default_config

Value = TypeVar("Value", bound=Hashable)


TITLES = {
    "copy": "Copy",
    "denoise": "Denoise",
    "mnist": "Sequential MNIST",
    "ptb": "Penn Treebank, character by character",
}


class View:
    """Everything that the report shows, computed from the results alone.

    Args:
        results: of one study, of any memories, forms of the task and seeds.

    Raises:
        ReportError: they are of different studies.
    """

    def __init__(self, results: Sequence[SupervisedResult]) -> None:
        self.results = tuple(results)
        studies = sorted({result.study for result in results})
        if len(studies) > 1:
            raise ReportError(
                f"results of {' and '.join(studies)} in one folder: keep each study in its own"
            )
        self.study = studies[0]

    @property
    def generated(self) -> bool:
        """Whether the task's sequences are drawn as they are needed, so that it can be solved."""
        return issubclass(TASKS[self.study], GeneratedConfig)

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Forms of the task that have results (``T100``, ...), the shorter delays first."""
        found = {variant(result.config) for result in self.results}
        return tuple(sorted(found, key=lambda name: (len(name), name)))

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Forms of the task in the default grid or with results."""
        delays = {T for T, _ in GRIDS[self.study].cells} - {None}
        found = {*self.variants, *(f"T{T}" for T in delays)}
        return tuple(sorted(found, key=lambda name: (len(name), name)))

    @cached_property
    def memories(self) -> tuple[str, ...]:
        """Memories in the default grid or with results."""
        found = {result.memory for result in self.results}
        found |= {memory for _, memory in GRIDS[self.study].cells}
        return in_order(found)

    def runs(self, variant_name: str, memory: str) -> list[SupervisedResult]:
        """The runs of one cell, by seed."""
        chosen = [
            result
            for result in self.results
            if (variant(result.config), result.memory) == (variant_name, memory)
        ]
        return sorted(chosen, key=lambda result: result.seed)

    @cached_property
    def ordered(self) -> list[SupervisedResult]:
        """All runs, by form of the task, memory and seed."""
        return [
            run for name in self.variants for memory in self.memories
            for run in self.runs(name, memory)
        ]  # fmt: skip

    def missing(self) -> dict[str, list[str]]:
        """What the default grid plans and no result has: form of the task -> memories."""
        seeds = GRIDS[self.study].seeds
        return self._cells(lambda runs: len(runs) < seeds)

    def cut_short(self) -> dict[str, list[str]]:
        """Where a run of the default grid ended neither by itself nor at the planned budget."""
        budget = GRIDS[self.study].budget

        def short(run: SupervisedResult) -> bool:
            asked = run.config.get("updates", run.config.get("epochs"))
            return asked < budget and not (run.solved or run.diverged)

        return self._cells(lambda runs: any(map(short, runs)))

    def beside_the_grid(self) -> dict[str, list[str]]:
        """What the paper has, the default grid does not plan, and no run has: form -> memories."""
        if self.study != "copy":
            return {}
        cells: dict[str, list[str]] = {}
        reported = ((T, memory) for memory, found in PAPER_COPY.items() for T in found)
        for T, memory in sorted(reported):
            if (T, memory) not in GRIDS["copy"].cells and not self.runs(f"T{T}", memory):
                cells.setdefault(f"T{T}", []).append(memory)
        return cells

    def _cells(self, wanted: Callable[[list[SupervisedResult]], bool]) -> dict[str, list[str]]:
        """Cells of the grid by what their runs of planned settings are: form -> memories."""
        grid = GRIDS[self.study]
        cells: dict[str, list[str]] = {}
        for T, memory in grid.cells:
            name = f"T{T}" if T is not None else _default_variant(self.study)
            if wanted([run for run in self.runs(name, memory) if planned(run, budget=1)]):
                cells.setdefault(name, []).append(memory)
        return cells


def planned(run: SupervisedResult, budget: int) -> bool:
    """Whether the study's command, with that budget, makes this run, or takes it for finished."""
    grid = GRIDS[run.study]
    if (run.config.get("T"), run.memory) not in grid.cells or run.seed >= grid.seeds:
        return False
    asked = {name: run.config[name] for name in ("seed", "T") if name in run.config}
    asked |= {name: budget for name in ("updates", "epochs") if name in run.config}
    config = default_config(run.study, run.memory, **grid.settings_of(run.memory, asked))
    return SupervisedTask(config).takes(run)


def _default_variant(study: str) -> str:
    return variant({"permuted": False, **GRIDS[study].form})


def variant_title(name: str) -> str:
    """A form of a task in words."""
    if name.startswith("T"):
        return f"T = {int(name[1:]):,}"
    pixels = name.removeprefix("permuted-").removeprefix("group")
    if not pixels:
        return "PTB"
    words = "pixel by pixel" if pixels == "1" else f"{pixels} pixels at a step"
    return f"permuted, {words}" if name.startswith("permuted") else words


def with_forms(
    runs: Iterable[SupervisedResult], value: Callable[[SupervisedResult], Value]
) -> dict[Value, str]:
    """What runs have, without repetition, and which forms of the task had it.

    Returns:
        Each value, with its forms in brackets; with nothing if all runs have the same.
    """
    forms: dict[Value, dict[str, None]] = {}
    for run in runs:
        forms.setdefault(value(run), {})[variant_title(variant(run.config))] = None
    if len(forms) == 1:
        return dict.fromkeys(forms, "")
    return {had: f" ({'; '.join(names)})" for had, names in forms.items()}
