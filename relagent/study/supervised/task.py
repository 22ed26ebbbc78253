"""One cell of a supervised grid: what it is called, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from relagent.runs.config import flag_of, from_json, names_of, to_json
from relagent.runs.directory import RunDirectory
from relagent.study.supervised.grid import (
    FIRST,
    TRANSFER_DELAYS,
    TRANSFER_MEMORIES,
    TRANSFER_T,
)
from relagent.study.supervised.result import SupervisedResult, read_result
from relagent.study.task import Task, TaskConflictError, check_settings
from relagent.tasks.config import DatasetConfig, GeneratedConfig, TaskConfig
from relagent.tasks.defaults import TASKS
from relagent.tasks.run import read_outcome, read_task_config


@dataclass(frozen=True)
class SupervisedTask(Task):
    """A memory that is trained on a supervised task.

    Its budget (``updates`` or ``epochs`` of the settings) is the only setting that decides about
    the outcome and may yet differ from that of a run or a result of the same name, because more
    updates only ever go on with fewer:

    - what is solved, or has diverged, is finished, after however many updates;
    - anything else is finished if its budget was at least the present one;
    - otherwise the run goes on from its last checkpoint with the present budget. (From the
      beginning if only the result file is there, and no run directory.)

    Attributes:
        config: the settings of training.
        root: folder of the folders of runs.
        results: folder of the results.
    """

    kind: ClassVar[str] = "supervised"
    unit: ClassVar[str] = "updates"
    scoring: ClassVar[str] = "scoring"

    config: TaskConfig
    root: Path = Path("runs")
    results: Path = Path("results")

    @property
    def figure(self) -> str:  # type: ignore[override]  # depends on the task
        """Bits per character on PTB, accuracy elsewhere; of the validation."""
        return "bpc" if self.config.task == "ptb" else "accuracy"

    @property
    def device(self) -> str:  # type: ignore[override]  # a setting of training here
        """Where training computes."""
        return self.config.device

    @property
    def delay(self) -> int | None:
        """The delay; None where the task has none."""
        return self.config.T if isinstance(self.config, GeneratedConfig) else None

    @property
    def budget_name(self) -> str:
        """The setting that says how long to train."""
        return "updates" if isinstance(self.config, GeneratedConfig) else "epochs"

    @property
    def budget(self) -> int:
        """How long to train if it is not solved before."""
        return int(getattr(self.config, self.budget_name))

    @property
    def name(self) -> str:
        """``T100-rel-rnn-s0``, ``group7-lstm-s1``, ``permuted-group1-rel-s0``."""
        words = [variant(to_json(self.config)), self.config.memory, f"s{self.config.seed}"]
        return "-".join(word for word in words if word)

    @property
    def run(self) -> Path:
        """The run directory, the same at each try."""
        return self.root / self.config.task / self.name

    @property
    def transfer_delays(self) -> tuple[int, ...]:
        """Other delays to score the trained model at."""
        config = self.config
        scored = config.task == "copy" and self.delay == TRANSFER_T
        return TRANSFER_DELAYS if scored and config.memory in TRANSFER_MEMORIES else ()

    def transfer_path(self, T: int) -> Path:
        """Where the score at another delay is kept until the task is finished."""
        return self.run / "transfer" / f"T{T}.json"

    def finished(self) -> bool:
        """See :meth:`Task.finished`, and above for the budget."""
        if not self.result.exists():
            return False
        result = read_result(self.result)
        self._check(self.result, result.config)
        return self.enough(result.solved or result.diverged, result.config)

    def takes(self, result: SupervisedResult) -> bool:
        """Whether a result is one of this very task that needs no more training."""
        try:
            self._check(self.result, result.config)
        except TaskConflictError:
            return False
        return self.enough(result.solved or result.diverged, result.config)

    def enough(self, ended: int | None, config: Mapping[str, Any]) -> bool:
        """Whether training has nothing left to do.

        Args:
            ended: the update at which it was solved or diverged; None if it did neither.
            config: with the budget that it had.
        """
        return ended is not None or config[self.budget_name] >= self.budget

    def check_run(self) -> None:
        """See :meth:`Task.check_run`."""
        if (self.run / "config.json").is_file():
            self._check(self.run, to_json(read_task_config(RunDirectory.open(self.run))))
        _ = self.total  # data that are not there are missed now

    def _check(self, path: Path, known: Mapping[str, Any]) -> None:
        may_differ = names_of(type(self.config), "budget", "machine")
        check_settings(path, known, to_json(self.config), may_differ)

    def do(self, stop: Callable[[], bool]) -> bool:
        """See :meth:`Task.do`."""
        from relagent.study.supervised.run import run_task

        return run_task(self, stop)

    @property
    def total(self) -> int:
        """See :attr:`Task.total`; of a set of data, its files are read for it."""
        if isinstance(self.config, DatasetConfig):
            return self.budget * epoch_length(replace(self.config, seed=0, epochs=1))
        return self.budget

    def trained(self, done: int) -> bool:
        """Whether training has ended; where it is solved or diverges, that is before the budget."""
        made = read_outcome(self.run)
        early = made.get("solved") or made.get("diverged")
        return super().trained(done) or (early is not None and made["updates"] == done)

    def read_figure(self, row: Mapping[str, Any]) -> float | None:
        """Of the last evaluation."""
        return row.get(f"validation/{self.figure}")

    @property
    def scores(self) -> list[Path]:
        """See :attr:`Task.scores`: one for each other delay."""
        return [self.transfer_path(T) for T in self.transfer_delays]

    def outcome(self) -> tuple[int, float | None]:
        """See :meth:`Task.outcome`; the figure is that of the last evaluation."""
        result = read_result(self.result)
        return result.updates, (result.validation or {}).get(self.figure)

    def to_json(self) -> dict[str, Any]:
        """See :meth:`Task.to_json`."""
        folders = {"root": str(self.root), "results": str(self.results)}
        return {"config": to_json(self.config), **folders}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SupervisedTask:
        """See :meth:`Task.from_json`."""
        config = from_json(TASKS[data["config"]["task"]], data["config"])
        return cls(config, Path(data["root"]), Path(data["results"]))


def variant(config: Mapping[str, Any]) -> str:
    """The form of a task that settings describe: ``T100``, ``group7``, ``permuted-group1``."""
    if "T" in config:
        return f"T{config['T']}"
    if "group" in config:
        return f"{'permuted-' if config['permuted'] else ''}group{config['group']}"
    return ""


@cache
def epoch_length(config: DatasetConfig) -> int:
    """Updates in an epoch."""
    return config.epoch_length(config.make_task())


def in_order(tasks: Iterable[SupervisedTask]) -> list[SupervisedTask]:
    """Sort tasks: the cheap ones and those that tell most come first, should time be short.

    By seed, then by T, then the memories of :data:`FIRST`, then the others as they come.
    """

    def place(task: SupervisedTask) -> tuple[int, int, int]:
        memory = task.config.memory
        rank = FIRST.index(memory) if memory in FIRST else len(FIRST)
        return task.config.seed, task.delay or 0, rank

    return sorted(tasks, key=place)


_ALWAYS_SAID = ("T", "seed", "updates", "epochs", "optimizer", "learning_rate", "combine")
"""Said even where they are the defaults: those were chosen, and may be chosen anew."""


def task_words(config: TaskConfig) -> list[str]:
    """The command line that trains with these settings, without the folders."""
    from relagent.tasks.defaults import default_config

    words = ["python", "-m", "relagent.tasks", config.task, "--memory", config.memory]
    plain = to_json(default_config(config.task, config.memory))
    for name, value in to_json(config).items():
        if name in ("task", "memory", *names_of(type(config), "machine")):
            continue
        if value != plain[name] or (value is not None and name in _ALWAYS_SAID):
            flag = flag_of(name)
            if isinstance(value, bool):
                words.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                words += [flag, str(value)]
    return words
