"""The denoise task: repeat ten symbols that were strewn over a long blank (Jing et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from relagent.runs.config import option
from relagent.tasks.base import Batch, GeneratedTask
from relagent.tasks.config import GeneratedConfig
from relagent.tasks.copy import BLANK, LENGTH, N_SYMBOLS, recall_batch


class Denoise(GeneratedTask):
    """Ten symbols of eight at random steps of the first T + 9, a marker, ten blanks.

    ::

        input   - - s - - - s s - - ... - s - - M - - - - - - - - - -
        target  - - - - - - - - - - ... - - - - - s s s s s s s s s s

    T + 20 steps. There are eleven inputs and ten classes, as in the paper's code, although one
    input and one class never occur: so parameter counts agree. Loss and accuracy are those of
    :class:`~relagent.tasks.copy.Copy`.
    """

    input_size = N_SYMBOLS + 3
    n_classes = N_SYMBOLS + 2
    MARKER = N_SYMBOLS + 2

    def batch(self, generator: torch.Generator, batch_size: int) -> Batch:
        """See :meth:`GeneratedTask.batch`."""
        symbols = torch.randint(1, N_SYMBOLS + 1, (LENGTH, batch_size), generator=generator)
        # The ten largest of random numbers are ten distinct places, each set equally likely.
        draws = torch.rand(self.T + LENGTH - 1, batch_size, generator=generator)
        places = draws.topk(LENGTH, dim=0).indices.sort(dim=0).values
        inputs = torch.full((self.T + 2 * LENGTH, batch_size), BLANK)
        inputs.scatter_(0, places, symbols)
        inputs[self.T + LENGTH - 1] = self.MARKER
        return recall_batch(inputs, symbols, self.input_size)


@dataclass(frozen=True, kw_only=True)
class DenoiseConfig(GeneratedConfig):
    """Settings of the denoise task."""

    task: Literal["denoise"] = option("denoise", "Name of the task.")

    def make_task(self) -> Denoise:
        """See :meth:`TaskConfig.make_task`."""
        return Denoise(self.T, self.evaluation_batches)
