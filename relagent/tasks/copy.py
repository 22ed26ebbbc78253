"""The copy task: repeat ten symbols after a long blank.

Hochreiter & Schmidhuber 1997, in the form of Arjovsky, Shah & Bengio 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relagent.runs.config import option
from relagent.tasks.base import Batch, GeneratedTask
from relagent.tasks.config import GeneratedConfig

N_SYMBOLS = 8
LENGTH = 10
BLANK = 0


class Copy(GeneratedTask):
    """Ten symbols of eight, T - 1 blanks, a marker, ten blanks; then the ten symbols are due.

    ::

        input   s s s s s s s s s s - - ... - - M - - - - - - - - - -
        target  - - - - - - - - - - - - ... - - - s s s s s s s s s s

    T + 20 steps, ten inputs (blank, symbols, marker), nine classes (blank, symbols). The loss is
    the mean over all steps, the accuracy that of the last ten.
    """

    input_size = N_SYMBOLS + 2
    n_classes = N_SYMBOLS + 1
    MARKER = N_SYMBOLS + 1

    def batch(self, generator: torch.Generator, batch_size: int) -> Batch:
        """See :meth:`GeneratedTask.batch`."""
        symbols = torch.randint(1, N_SYMBOLS + 1, (LENGTH, batch_size), generator=generator)
        inputs = torch.full((self.T + 2 * LENGTH, batch_size), BLANK)
        inputs[:LENGTH] = symbols
        inputs[self.T + LENGTH - 1] = self.MARKER
        return recall_batch(inputs, symbols, self.input_size)


def recall_batch(inputs: Tensor, symbols: Tensor, input_size: int) -> Batch:
    """Return the batch that asks for the symbols at the last steps, and for blanks before.

    Args:
        inputs: [T, B] numbers of symbols.
        symbols: [10, B].
        input_size: number of different inputs.
    """
    targets = torch.full_like(inputs, BLANK)
    targets[-LENGTH:] = symbols
    scored = torch.zeros(inputs.shape, dtype=torch.bool)
    scored[-LENGTH:] = True
    x = torch.nn.functional.one_hot(inputs, input_size).float()
    return Batch(x, targets, torch.ones(inputs.shape), scored)


def memoryless_loss(T: int) -> float:
    """Return the best loss without a memory, of copy and of denoise: 10 ln 8 / (T + 20) nats.

    Blanks where they are due, then a guess among eight at the last ten of T + 20 steps.
    """
    return LENGTH * math.log(N_SYMBOLS) / (T + 2 * LENGTH)


@dataclass(frozen=True, kw_only=True)
class CopyConfig(GeneratedConfig):
    """Settings of the copy task."""

    task: Literal["copy"] = option("copy", "Name of the task.")

    def make_task(self) -> Copy:
        """See :meth:`TaskConfig.make_task`."""
        return Copy(self.T, self.evaluation_batches)
