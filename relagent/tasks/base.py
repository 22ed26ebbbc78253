"""What a task is: batches of sequences with targets, and what a model is measured by.

A batch is a pure function of the run's seed and the batch's number. Nothing is drawn from a stream
that would have to be saved, so an interrupted run sees exactly what an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """Sequences and what is to be said at each of their steps."""

    x: Tensor
    """[T, B, F] features, or [T, B] numbers of symbols, which the model embeds."""
    targets: Tensor
    """[T, B] the right class."""
    weight: Tensor
    """[T, B] of each step in the loss."""
    scored: Tensor
    """[T, B] whether the step counts for accuracy."""
    continues: bool = False
    """Whether these sequences go on where those of the batch before ended."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        x, targets, weight, scored = (tensor.to(device) for tensor in self[:4])
        return Batch(x, targets, weight, scored, self.continues)


class Score(NamedTuple):
    """How well a model did on some batches."""

    loss: float
    """Cross-entropy in nats, the weighted mean over steps."""
    correct: int
    """Scored steps with the right class."""
    scored: int
    """Scored steps."""

    @property
    def accuracy(self) -> float:
        """Share of the scored steps with the right class."""
        return self.correct / self.scored

    @property
    def perfect(self) -> bool:
        """Whether not one scored step was wrong."""
        return self.correct == self.scored

    @property
    def bpc(self) -> float:
        """The loss in bits: bits per character, where a step is a character."""
        return self.loss / math.log(2)


class Stream(IntEnum):
    """What random numbers are for; different purposes never share any."""

    TRAIN = 0
    VALIDATION = 1
    TRANSFER = 2


def generator(seed: int, stream: Stream, number: int) -> torch.Generator:
    """Return the random numbers of one batch (or epoch, or evaluation)."""
    mixed = np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) % 2**63)


class Task(ABC):
    """Base class of tasks.

    Attributes:
        input_size: F, or the number of symbols where ``embedded``.
        n_classes: number of classes.
        embedded: whether inputs are numbers of symbols instead of features.
        characters: whether a step is a character, so that the loss is also told in bits per
            character, and less of it is better; otherwise more accuracy is.
        continuous: whether batches continue one another.
        tested: whether there are test data beside validation data.
        solvable: whether every step can be right, so that training may end when all are.
    """

    input_size: int
    n_classes: int
    embedded: ClassVar[bool] = False
    characters: ClassVar[bool] = False
    continuous: ClassVar[bool] = False
    tested: ClassVar[bool] = False
    solvable: ClassVar[bool] = False

    @abstractmethod
    def training_batch(self, number: int, batch_size: int, seed: int) -> Batch:
        """Return the training batch of a number from 0."""

    @abstractmethod
    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, number: int
    ) -> Iterator[Batch]:
        """Yield what a model is evaluated on.

        Args:
            split: ``validation`` or, where ``tested``, ``test``.
            batch_size: B; the last batch may be smaller.
            seed: the run's.
            number: of the evaluation; where data are drawn, each draws its own.
        """

    @property
    def fingerprint(self) -> str | None:
        """What tells the data apart from others; None where sequences are drawn."""
        return None

    def merit(self, score: Score) -> float:
        """Return what is to be maximised."""
        return -score.loss if self.characters else score.accuracy


class GeneratedTask(Task):
    """A task whose sequences are drawn as they are needed.

    Args:
        T: the delay; sequences have T + 20 steps.
        n_evaluation_batches: number of batches of an evaluation.
    """

    solvable = True

    def __init__(self, T: int, n_evaluation_batches: int = 10) -> None:
        self.T = T
        self.n_evaluation_batches = n_evaluation_batches

    @abstractmethod
    def batch(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw a batch of T + 20 steps, from the generator alone.

        Returns:
            x [T + 20, batch_size, input_size], the rest [T + 20, batch_size].
        """

    def training_batch(self, number: int, batch_size: int, seed: int) -> Batch:
        """See :meth:`Task.training_batch`."""
        return self.batch(generator(seed, Stream.TRAIN, number), batch_size)

    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, number: int
    ) -> Iterator[Batch]:
        """See :meth:`Task.evaluation_batches`: sequences that were never seen."""
        draws = generator(seed, Stream.VALIDATION, number)
        for _ in range(self.n_evaluation_batches):
            yield self.batch(draws, batch_size)


class DatasetTask(Task):
    """A task with a fixed set of data, which training passes over in epochs."""

    tested = True

    @abstractmethod
    def epoch_length(self, batch_size: int) -> int:
        """Return how many batches an epoch has.

        Raises:
            ConfigError: the data do not fill one batch.
        """

    @abstractmethod
    def contents(self) -> Iterator[bytes]:
        """Yield all that the data hold."""

    @cached_property
    def fingerprint(self) -> str:
        """See :attr:`Task.fingerprint`: the SHA-256 of :meth:`contents`."""
        digest = hashlib.sha256()
        for part in self.contents():
            digest.update(part)
        return digest.hexdigest()


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the weighted mean cross-entropy in nats.

    Args:
        logits: [T, B, C].
        batch: says the classes and the weights.

    Returns:
        A scalar.
    """
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), reduction="none"
    )
    return (losses * batch.weight.flatten()).sum() / batch.weight.sum()


def count_correct(logits: Tensor, batch: Batch) -> tuple[int, int]:
    """Return how many scored steps have the right class, and how many are scored.

    Args:
        logits: [T, B, C].
        batch: says the classes and the steps.
    """
    right = (logits.argmax(dim=2) == batch.targets) & batch.scored
    return int(right.sum()), int(batch.scored.sum())
