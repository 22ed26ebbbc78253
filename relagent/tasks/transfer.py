"""Transfer of a trained model to other delays: weights of one T, scored at others."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from relagent.errors import RelagentError
from relagent.runs.files import read_or_empty, write_atomically
from relagent.tasks.base import Score, Stream, count_correct, cross_entropy, generator
from relagent.tasks.config import GeneratedConfig
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


def transfer(
    loaded: LoadedModel, delays: Sequence[int], *, batches: int = 100, batch_size: int = 100
) -> list[TransferScore]:
    """Score a model on fresh sequences of other delays.

    Args:
        loaded: of a run on copy or denoise.
        delays: T of each score.
        batches: number of batches at each delay.
        batch_size: sequences in a batch.

    Raises:
        TransferError: the run is of another task.
        ConfigError: a delay is below 1.
    """
    config = loaded.config
    if not isinstance(config, GeneratedConfig):
        raise TransferError(
            f"this is a run of {config.task}, which has no delay T: give one of copy or denoise"
        )
    return [_score(loaded, config, T, batches, batch_size) for T in delays]


def _score(
    loaded: LoadedModel, config: GeneratedConfig, T: int, batches: int, batch_size: int
) -> TransferScore:
    task: Any = replace(config, T=T).make_task()
    device = next(loaded.model.parameters()).device
    loss, correct, scored = 0.0, 0, 0
    draws = generator(config.seed, Stream.TRANSFER, T)
    with torch.no_grad():
        for _ in range(batches):
            batch = task.batch(draws, batch_size).to(device)
            logits, _ = loaded.model(batch.x)
            loss += float(cross_entropy(logits, batch)) / batches
            right, asked = count_correct(logits, batch)
            correct += right
            scored += asked
    return TransferScore(T, Score(loss, correct, scored), batches * batch_size)


def add_score(path: Path, loaded: LoadedModel, score: TransferScore) -> None:
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
    others = [row for row in known.get("scores", []) if row["T"] != score.T] if same else []
    scores = sorted([*others, score.numbers()], key=lambda row: row["T"])
    content = {**model, "scores": scores}
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
