"""What a run of any study is to the programs that do it here or elsewhere and show how far it is.

A study has one subclass: :class:`~relagent.study.transfer.task.TransferTask` (agents, played in
other worlds), :class:`~relagent.study.supervised.task.SupervisedTask` (sequence models).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from relagent.errors import RelagentError


class TaskError(RelagentError):
    """A task that cannot be done as asked."""


class TaskConflictError(TaskError):
    """A run or a result of the same name that was made otherwise."""


class Task(ABC):
    """One run of a study; it is the same at each try, and travels to other processes as JSON.

    Attributes:
        kind: which subclass it is, in JSON.
        unit: what training counts.
        figure: the number that tells how well it goes.
        scoring: what is done with a trained model, in one word.
        root: folder of the run directories.
        results: folder of the results.
        device: where training computes.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    figure: ClassVar[str]
    scoring: ClassVar[str]

    root: Path
    results: Path
    device: str

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the result, and in the table of all runs."""

    @property
    @abstractmethod
    def run(self) -> Path:
        """The run directory."""

    @property
    def result(self) -> Path:
        """The result file."""
        return self.results / "runs" / f"{self.name}.json"

    @abstractmethod
    def finished(self) -> bool:
        """Whether the result is there.

        Raises:
            TaskConflictError: it is there, but made with other settings.
            RelagentError: its file is damaged.
        """

    @abstractmethod
    def check_run(self) -> None:
        """Raise TaskConflictError where the run directory holds a run of other settings."""

    @abstractmethod
    def do(self, stop: Callable[[], bool]) -> bool:
        """Do the task, or what is left of it.

        Args:
            stop: polled; true saves and ends.

        Returns:
            Whether the result is there; it may have been asked to stop.

        Raises:
            TaskConflictError: its run or result was made with other settings.
            RelagentError: what training or scoring raises.
        """

    @property
    @abstractmethod
    def total(self) -> int:
        """How far training goes at most, in ``unit``."""

    def trained(self, done: int) -> bool:
        """Whether training has ended that has come that far."""
        return done >= self.total

    @abstractmethod
    def read_figure(self, row: Mapping[str, Any]) -> float | None:
        """The figure in a row of metrics, None where the row has none."""

    @property
    @abstractmethod
    def scores(self) -> list[Path]:
        """The files that scoring writes one by one."""

    @abstractmethod
    def outcome(self) -> tuple[int, float | None]:
        """Of a finished task: how far it was trained, and its figure."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The task as plain values, for another process."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The task that :meth:`to_json` described."""


def task_from_json(data: Mapping[str, Any]) -> Task:
    """The task that some task's :meth:`Task.to_json` described, with its ``kind``."""
    values = {name: value for name, value in data.items() if name != "kind"}
    # Only what is needed is imported: a run's peak memory is that of its whole process.
    if data["kind"] == "supervised":
        from relagent.study.supervised.task import SupervisedTask

        return SupervisedTask.from_json(values)
    from relagent.study.transfer.task import TransferTask

    return TransferTask.from_json(values)


def task_to_json(task: Task) -> dict[str, Any]:
    """A task of any kind as plain values."""
    return {"kind": task.kind, **task.to_json()}


def check_settings(
    path: Path,
    known: Mapping[str, Any],
    wanted: Mapping[str, Any],
    may_differ: tuple[str, ...],
) -> None:
    """Compare settings that a run or a result was made with to those that are asked for.

    A setting that did not exist yet when it was made differs, too: nobody knows what it would be.

    Raises:
        TaskConflictError: they differ in what may not differ.
    """
    for name in [*known, *(name for name in wanted if name not in known)]:
        if name in may_differ or (name in known and known[name] == wanted.get(name)):
            continue
        made = f"{name} {known[name]!r}" if name in known else f"no setting {name}"
        raise TaskConflictError(
            f"{path} was made with {made}, now it is {wanted.get(name)!r}: ask for the same, or "
            "choose another --root and --results"
        )
