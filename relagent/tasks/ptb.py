"""The Penn Treebank, character by character (Mikolov et al. 2012): say which comes next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relagent.runs.config import ConfigError, option
from relagent.tasks.base import Batch, DatasetTask
from relagent.tasks.config import DatasetConfig
from relagent.tasks.data import EOS, PTB_FILES, DataFileError, find_ptb, read_characters


class PennTreebank(DatasetTask):
    """A text cut into B long pieces, which are read side by side, a window of steps at a time.

    Inputs are numbers of symbols [T, B] in the order of :attr:`symbols`; the target is the next
    symbol. Windows follow one another, so each batch but an epoch's first continues the one before.
    The last window is shorter, and what does not fill B equal pieces is left out.

    Args:
        folder: with ptb.train.txt, ptb.valid.txt and ptb.test.txt.
        window: steps that gradients cross.

    Raises:
        DataError: a file cannot be used.
    """

    embedded = True
    characters = True
    continuous = True

    def __init__(self, folder: Path, window: int = 150) -> None:
        self.window = window
        texts = {
            split: read_characters(folder / name)
            for split, name in zip(("train", "validation", "test"), PTB_FILES, strict=True)
        }
        known = np.unique(_code_points(texts["train"]))
        self.symbols = [EOS if chr(point) == "\n" else chr(point) for point in known]
        self.texts: dict[str, Tensor] = {}
        for (split, text), name in zip(texts.items(), PTB_FILES, strict=True):
            unknown = sorted(set(text) - {chr(point) for point in known})
            if unknown:
                problem = f"{unknown[0]!r} in it never occurs in {PTB_FILES[0]}"
                raise DataFileError(folder / name, problem)
            self.texts[split] = torch.from_numpy(np.searchsorted(known, _code_points(text)))
        self.input_size = self.n_classes = len(self.symbols)

    def contents(self) -> Iterator[bytes]:
        """See :meth:`DatasetTask.contents`."""
        yield "".join(self.symbols).encode()
        yield from (text.numpy().tobytes() for text in self.texts.values())

    def epoch_length(self, batch_size: int) -> int:
        """See :meth:`DatasetTask.epoch_length`; any text that is too short is told now."""
        windows = {split: self._n_windows(split, batch_size) for split in self.texts}
        return windows["train"]

    def training_batch(self, number: int, batch_size: int, seed: int) -> Batch:
        """See :meth:`Task.training_batch`; the text keeps its order."""
        return self.take("train", number % self.epoch_length(batch_size), batch_size)

    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, number: int
    ) -> Iterator[Batch]:
        """See :meth:`Task.evaluation_batches`: all pieces, read like those of the training text.

        The first character of each piece and the rest behind the last are not asked for.
        """
        for window in range(self._n_windows(split, batch_size)):
            yield self.take(split, window, batch_size)

    def take(self, split: str, window: int, batch_size: int) -> Batch:
        """Return a window of the text.

        Args:
            split: ``train``, ``validation`` or ``test``.
            window: its number; 0 starts the pieces, the last may be shorter.
            batch_size: B, pieces side by side.

        Returns:
            x and targets [window, B], numbers of characters.

        Raises:
            ConfigError: the text is too short for so many pieces.
        """
        length = self._piece_length(split, batch_size)
        pieces = self.texts[split][: batch_size * length].view(batch_size, length)
        first = window * self.window
        last = min(first + self.window, length - 1)
        x = pieces[:, first:last].t().contiguous()
        targets = pieces[:, first + 1 : last + 1].t().contiguous()
        every = torch.ones(x.shape)
        return Batch(x, targets, every, every.bool(), continues=window > 0)

    def _piece_length(self, split: str, batch_size: int) -> int:
        text = self.texts[split]
        if len(text) < 2 * batch_size:
            rule = f"the {split} text has {len(text)} characters, each piece needs two"
            raise ConfigError("batch_size", batch_size, rule)
        return len(text) // batch_size

    def _n_windows(self, split: str, batch_size: int) -> int:
        return -(-(self._piece_length(split, batch_size) - 1) // self.window)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


@dataclass(frozen=True, kw_only=True)
class PTBConfig(DatasetConfig):
    """Settings of the character-level Penn Treebank."""

    task: Literal["ptb"] = option("ptb", "Name of the task.")
    window: int = option(150, "Steps that gradients cross.")
    embedding_size: int = option(200, "Features that a character is turned into.")
    batch_size: int = option(128, "Pieces that the text is cut into, read side by side.")
    halve_on_stall: bool = option(
        True, "Halve the step sizes after an epoch that did not improve the validation."
    )
    log_every: int = option(20, "Updates that one row of the metrics averages.")

    def make_task(self) -> PennTreebank:
        """See :meth:`TaskConfig.make_task`."""
        return PennTreebank(find_ptb(self.data), self.window)
