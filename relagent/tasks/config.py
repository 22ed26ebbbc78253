"""Settings of a supervised run; each task adds its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from relagent.memories import MEMORIES, ExpRNN, Memory, check_memory, options_of, takers_of
from relagent.memories.attention import Combine
from relagent.runs.config import Config, ConfigError, check_seed, check_threads, option
from relagent.tasks.base import DatasetTask, Task

Optimizer = Literal["adam", "rmsprop"]
Nonlinearity = Literal["tanh", "relu", "modrelu"]

_FROM_TABLE = "by task and memory, see relagent/tasks/defaults.py"


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """Everything that decides what a run learns, whatever the task.

    Fields without a default come from :func:`relagent.tasks.defaults.default_config`. ``None``
    stands where the memory has no such thing.
    """

    task: str = option(help="Name of the task.")
    memory: str = option("rel-rnn", f"Memory of the model: one of {', '.join(MEMORIES)}.")
    hidden_size: int = option(help="Size of the hidden state.", default_is=_FROM_TABLE)
    nonlinearity: Nonlinearity | None = option(
        help=f"φ of the recurrence ({takers_of('nonlinearity')}).", default_is=_FROM_TABLE
    )
    nu: int | None = option(
        help=f"Length ν of the short-term buffer ({takers_of('nu')}).", default_is=_FROM_TABLE
    )
    rho: int | None = option(
        help=f"Size ρ of the relevant set ({takers_of('rho')}).", default_is=_FROM_TABLE
    )
    combine: Combine | None = option(
        help=f"How hidden state and context make the macro-state ({takers_of('combine')}).",
        default_is=_FROM_TABLE,
    )
    optimizer: Optimizer = option(help="Optimiser.", default_is=_FROM_TABLE)
    learning_rate: float = option(help="Step size.", default_is=_FROM_TABLE)
    orthogonal_learning_rate: float | None = option(
        help="Step size of exp-rnn's rotation.", default_is=_FROM_TABLE
    )
    batch_size: int = option(10, "Sequences in a batch.")
    max_grad_norm: float = option(1.0, "The gradient's norm is clipped to this.")
    seed: int = option(0, "Seed of weights and batches.")
    log_every: int = option(100, "Updates that one row of the metrics averages.")
    checkpoint_minutes: float = option(1.0, "Minutes between two checkpoints.", role="machine")
    device: str = option("auto", "Where to compute: auto, cpu or cuda.", role="machine")
    threads: int = option(
        1,
        "Threads to compute with; at most sizes a second one costs more than it gives.",
        role="machine",
    )

    def __post_init__(self) -> None:
        """Check what can be checked without making anything."""
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and field.name not in ("seed", "nu", "rho") and value < 1:
                raise ConfigError(field.name, value, "it must be at least 1")
        check_seed(self.seed)
        check_threads(self.threads)
        if self.checkpoint_minutes < 0:
            raise ConfigError(
                "checkpoint_minutes", self.checkpoint_minutes, "it must not be negative"
            )
        for name in ("learning_rate", "orthogonal_learning_rate", "max_grad_norm"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(name, getattr(self, name), "it must be more than 0")
        taken = settings_of(self.memory)
        for name in OPTIONS if self.memory in MEMORIES else ():
            value = getattr(self, name)
            if name in taken and value is None:
                raise ConfigError(name, value, f"{self.memory} needs one")
            if name not in taken and value is not None:
                raise ConfigError(name, value, f"{self.memory} takes none: leave it out")
        check_memory(self.memory, **self.memory_options)  # says at once what would be said later
        MEMORIES[self.memory].check_hidden_size(self.hidden_size)

    @property
    def memory_options(self) -> dict[str, Any]:
        """What the memory is made with, beside its sizes."""
        values = {name: getattr(self, name) for name in MEMORY_OPTIONS}
        return {name: value for name, value in values.items() if value is not None}

    def make_task(self) -> Task:
        """Return the task.

        Raises:
            DataError: it needs data that are not there.
        """
        raise NotImplementedError

    def total_updates(self, task: Task) -> int:
        """Return how many updates training takes if it is not solved before."""
        raise NotImplementedError

    def evaluation_interval(self, task: Task) -> int:
        """Return how many updates lie between two evaluations."""
        raise NotImplementedError


MEMORY_OPTIONS = ("nonlinearity", "nu", "rho", "combine")
"""Settings that a memory is made with, if it takes them."""

OPTIONS = (*MEMORY_OPTIONS, "orthogonal_learning_rate")
"""Settings that only some memories have a use for."""


def settings_of(memory: str) -> set[str]:
    """Return those of :data:`OPTIONS` that a memory takes; of an unknown name none."""
    options = options_of(memory) & set(MEMORY_OPTIONS)
    if issubclass(MEMORIES.get(memory, Memory), ExpRNN):
        options.add("orthogonal_learning_rate")
    return options


@dataclass(frozen=True, kw_only=True)
class GeneratedConfig(TaskConfig):
    """Settings of a task whose sequences are drawn as they are needed."""

    T: int = option(200, "The delay; sequences have T + 20 steps.")
    updates: int = option(200_000, "Updates to train for at most.", role="budget")
    evaluate_every: int = option(100, "Updates between two evaluations.")
    evaluation_batches: int = option(
        10, "Fresh batches of an evaluation; training ends when all that they ask for is right."
    )

    def total_updates(self, task: Task) -> int:
        """See :meth:`TaskConfig.total_updates`."""
        return self.updates

    def evaluation_interval(self, task: Task) -> int:
        """See :meth:`TaskConfig.evaluation_interval`."""
        return self.evaluate_every


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(TaskConfig):
    """Settings of a task with a fixed set of data, which is evaluated after each epoch."""

    epochs: int = option(100, "Passes over the training data.", role="budget")
    halve_on_stall: bool = option(
        False, "Halve the step sizes after an epoch that did not improve the validation."
    )
    data: str | None = option(
        None,
        "Folder of the data; without it RELAGENT_DATA names it, without that it is data.",
        role="machine",
    )

    def epoch_length(self, task: Task) -> int:
        """Return how many updates an epoch takes."""
        return cast(DatasetTask, task).epoch_length(self.batch_size)

    def total_updates(self, task: Task) -> int:
        """See :meth:`TaskConfig.total_updates`."""
        return self.epochs * self.epoch_length(task)

    def evaluation_interval(self, task: Task) -> int:
        """See :meth:`TaskConfig.evaluation_interval`."""
        return self.epoch_length(task)
