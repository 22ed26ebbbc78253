"""Transfer of a trained model to other delays: weights of one T, scored at others."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from relagent.errors import RelagentError
from relagent.runs.files import read_or_empty, write_atomically
from relagent.tasks.base import GeneratedTask, Score, Stream, generator
from relagent.tasks.config import GeneratedConfig, TaskConfig
from relagent.tasks.evaluate import score
from relagent.tasks.run import LoadedModel


class TransferError(RelagentError):
    """A run that cannot be scored at other delays."""


@dataclass(frozen=True)
class TransferScore:
    """How a model did at one delay."""

    T: int
    score: Score
    sequences: int

    def numbers(self) -> dict[str, float]:
        """As plain numbers: ``T``, ``accuracy``, ``loss`` and ``sequences``.

        A loss that is no finite number is left out, as JSON has no word for it.
        """
        numbers = {"T": self.T, "accuracy": self.score.accuracy, "sequences": self.sequences}
        finite = math.isfinite(self.score.loss)
        return numbers | ({"loss": self.score.loss} if finite else {})


def check_delay(config: TaskConfig) -> GeneratedConfig:
    """Return the settings of a run, which must have a delay.

    Raises:
        TransferError: it is of a task that has none.
    """
    if not isinstance(config, GeneratedConfig):
        raise TransferError(
            f"this is a run of {config.task}, which has no delay T: give one of copy or denoise"
        )
    return config


def transfer(
    loaded: LoadedModel, T: int, *, batches: int = 100, batch_size: int = 100
) -> TransferScore:
    """Score a model on fresh sequences of another delay.

    Args:
        loaded: of a run on copy or denoise.
        T: the delay.
        batches: number of batches.
        batch_size: sequences in a batch.

    Raises:
        TransferError: the run is of another task.
        ConfigError: the delay is below 1.
    """
    config = check_delay(loaded.config)
    task = cast(GeneratedTask, replace(config, T=T).make_task())
    draws = generator(config.seed, Stream.TRANSFER, T)
    found = score(loaded.model, (task.batch(draws, batch_size) for _ in range(batches)))
    return TransferScore(T, cast(Score, found), batches * batch_size)


def add_score(path: Path, loaded: LoadedModel, made: TransferScore) -> None:
    """Write a score into a JSON file, beside those of the same weights at other delays."""
    config: Any = loaded.config
    model = {
        "task": config.task,
        "memory": config.memory,
        "trained_T": config.T,
        "updates": loaded.updates,
    }
    known = read_or_empty(path)
    same = all(known.get(name) == value for name, value in model.items())
    others = [row for row in known.get("scores", []) if row["T"] != made.T] if same else []
    scores = sorted([*others, made.numbers()], key=lambda row: row["T"])
    content = {**model, "scores": scores}
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
