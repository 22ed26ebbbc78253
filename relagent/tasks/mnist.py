"""Sequential MNIST: name a digit after reading it pixel by pixel (Le, Jaitly & Hinton 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from relagent.runs.config import ConfigError, option
from relagent.tasks.base import Batch, DatasetTask, Stream, generator
from relagent.tasks.config import DatasetConfig
from relagent.tasks.data import DataFileError, find_mnist, read_mnist

PERMUTATION_SEED = 0
"""One permutation for all runs, whatever their seed."""


class SequentialMNIST(DatasetTask):
    """A digit's pixels in reading order, or in one fixed random order, some at each step.

    [784 / group, B, group] values from 0 to 1, row after row of the image; the class is asked for
    at the last step. The last sixth of the training images (10,000 of 60,000) is the validation
    set.

    Args:
        folder: with MNIST's four files.
        permuted: whether pixels come in a fixed random order.
        group: pixels at a step; it divides the number of pixels.

    Raises:
        DataError: a file cannot be used.
        ConfigError: ``group`` does not divide the number of pixels.
    """

    n_classes = 10

    def __init__(self, folder: Path, *, permuted: bool = False, group: int = 1) -> None:
        images, labels = read_mnist(folder, "train")
        pixels = torch.from_numpy(images.copy()).flatten(1)
        n_pixels = pixels.shape[1]
        if n_pixels % group:
            raise ConfigError("group", group, f"it must divide {n_pixels}, as 1, 7 or 28 do")
        if len(images) < 6:
            raise DataFileError(folder, f"{len(images)} training images are too few to split")
        self.input_size = group
        self.order = torch.arange(n_pixels)
        if permuted:
            draws = torch.Generator().manual_seed(PERMUTATION_SEED)
            self.order = torch.randperm(n_pixels, generator=draws)
        digits = torch.from_numpy(labels.copy()).long()
        n_train = len(images) - len(images) // 6
        test_images, test_labels = read_mnist(folder, "t10k")
        self.parts: dict[str, tuple[Tensor, Tensor]] = {
            "train": (pixels[:n_train], digits[:n_train]),
            "validation": (pixels[n_train:], digits[n_train:]),
            "test": (
                torch.from_numpy(test_images.copy()).flatten(1),
                torch.from_numpy(test_labels.copy()).long(),
            ),
        }
        if self.parts["test"][0].shape[1] != n_pixels or not len(test_images):
            raise DataFileError(folder, "training and test images do not belong together")

    def contents(self) -> Iterator[bytes]:
        """See :meth:`DatasetTask.contents`."""
        for part in self.parts.values():
            yield from (tensor.numpy().tobytes() for tensor in part)

    def epoch_length(self, batch_size: int) -> int:
        """See :meth:`DatasetTask.epoch_length`; what does not fill a batch is left out."""
        n_train = len(self.parts["train"][1])
        if batch_size > n_train:
            raise ConfigError("batch_size", batch_size, f"there are {n_train} training images")
        return n_train // batch_size

    def training_batch(self, number: int, batch_size: int, seed: int) -> Batch:
        """See :meth:`Task.training_batch`; each epoch shuffles anew."""
        epoch, place = divmod(number, self.epoch_length(batch_size))
        draws = generator(seed, Stream.TRAIN, epoch)
        shuffled = torch.randperm(len(self.parts["train"][1]), generator=draws)
        return self.take("train", shuffled[place * batch_size : (place + 1) * batch_size])

    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, number: int
    ) -> Iterator[Batch]:
        """See :meth:`Task.evaluation_batches`: each image once."""
        n_images = len(self.parts[split][1])
        for first in range(0, n_images, batch_size):
            yield self.take(split, torch.arange(first, min(first + batch_size, n_images)))

    def take(self, split: str, rows: Tensor) -> Batch:
        """Return some images [B] of a part."""
        pixels, digits = self.parts[split]
        # [B, 784] -> [784 / group, B, group]
        x = pixels[rows][:, self.order].float() / 255
        x = x.view(len(rows), -1, self.input_size).transpose(0, 1).contiguous()
        steps = x.shape[:2]
        weight = torch.zeros(steps)
        weight[-1] = 1
        return Batch(x, digits[rows].expand(steps), weight, weight.bool())


@dataclass(frozen=True, kw_only=True)
class MNISTConfig(DatasetConfig):
    """Settings of sequential MNIST."""

    task: Literal["mnist"] = option("mnist", "Name of the task.")
    permuted: bool = option(False, "Read the pixels in one fixed random order.")
    group: int = option(1, "Pixels that are read at a step; 7 makes 112 steps.")
    batch_size: int = option(100, "Sequences in a batch.")

    def make_task(self) -> SequentialMNIST:
        """See :meth:`TaskConfig.make_task`."""
        return SequentialMNIST(find_mnist(self.data), permuted=self.permuted, group=self.group)
