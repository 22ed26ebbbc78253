"""Sequences that a trained supervised model is looked at with, and the loss that it has on them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relagent.analysis.gradients import AnalysisInputError
from relagent.memories import Memory
from relagent.runs.config import ConfigError
from relagent.tasks.base import Batch
from relagent.tasks.run import LoadedModel


@dataclass(frozen=True)
class Sequences:
    """B sequences of T steps, as a model's memory reads them.

    Attributes:
        memory: the model's.
        x: [T, B, F], what the memory reads: behind an embedding, the embedded symbols.
        head: from the memory's output to the logits.
        batch: says the classes, and which steps count.
    """

    memory: Memory[Any]
    x: Tensor
    head: nn.Module
    batch: Batch

    def loss(self, outputs: Tensor) -> Tensor:
        """Return L, summed over sequences: each one's mean cross-entropy of the steps that count.

        These are the steps of its accuracy: the last ten of copy and denoise, the last of MNIST,
        all of a text.

        Args:
            outputs: [T, B, H] of the memory.

        Returns:
            A scalar in nats.
        """
        losses = nn.functional.cross_entropy(
            self.head(outputs).flatten(0, 1), self.batch.targets.flatten(), reduction="none"
        ).view(self.batch.targets.shape)
        counts = self.batch.scored.to(losses)
        return ((losses * counts).sum(dim=0) / counts.sum(dim=0)).sum()

    def right(self, outputs: Tensor) -> float:
        """Return the share of the steps that count whose class is right."""
        hits = (self.head(outputs).argmax(dim=2) == self.batch.targets) & self.batch.scored
        return int(hits.sum()) / int(self.batch.scored.sum())


def take_sequences(loaded: LoadedModel, count: int) -> Sequences:
    """Return sequences that the model was not trained on: the first of its validation data.

    Everything is in double precision: a gradient that reaches far back may be smaller than float32
    can tell from 0.

    Args:
        loaded: a trained model; it is copied and stays as it is.
        count: B. There may be fewer in the data; a text is cut into so many pieces and its first
            window is read.

    Raises:
        AnalysisInputError: ``count`` is not positive, or more than the data hold, or the model's
            loss is no finite number.
    """
    if count < 1:
        raise AnalysisInputError(f"{count} sequences show nothing: ask for at least 1")
    model = copy.deepcopy(loaded.model).double()
    try:
        batch = next(loaded.task.evaluation_batches("validation", count, loaded.config.seed, 0))
    except ConfigError as error:
        raise AnalysisInputError(f"{count} sequences are more than the data hold") from error
    batch = batch.to(next(model.parameters()).device)
    with torch.no_grad():
        x = batch.x.double() if model.embedding is None else model.embedding(batch.x)
        taken = Sequences(model.memory, x, model.head, batch)
        if not taken.loss(model.memory(x)[0]).isfinite():
            raise AnalysisInputError(
                f"after {loaded.updates:,} updates the model's loss is no finite number: training "
                "diverged, and no gradient is left to look at; train a new run with a smaller "
                "--learning-rate"
            )
    return taken
