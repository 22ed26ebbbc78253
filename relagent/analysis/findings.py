"""The numbers that an analysis of a run is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relagent.analysis.measures import (
    Paths,
    attended_age,
    attention_entropy,
    gradient_paths,
    last_step_depths,
    look_back,
    remembered,
)
from relagent.memories import Attention, Memory

Array = NDArray[np.float64]


class Sight(NamedTuple):
    """What one batch of equally long sequences shows: [T, B] and the like."""

    look: Attention | None
    paths: Paths


def see(memory: Memory[Any], x: Tensor, loss: Callable[[Tensor], Tensor]) -> Sight:
    """Measure a memory along x [T, B, F]; loss from the outputs [T, B, H] to a scalar."""
    return Sight(look_back(memory, x), gradient_paths(memory, x, loss))


class Profile(NamedTuple):
    """A quantity along sequences, by the number of steps before the end of a sequence."""

    low: Array
    """The lower quartile over sequences."""
    median: Array
    high: Array
    """The upper quartile."""
    together: Array
    """The root mean square over sequences: of norms, that of all of them as one vector,
    over the root of their number."""


def profile_of(tables: Sequence[Tensor]) -> Profile:
    """Return what a quantity is along sequences.

    Args:
        tables: [T, B] each, of B sequences of T steps. Index 0 of the profile is the last step of
            all of them; where sequences are shorter, the others decide.
    """
    rows = [row for table in tables for row in table.double().cpu().numpy().T]
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row[::-1]
    largest = np.nanmax(table, axis=0)
    # Squares of small norms would be 0, those of large ones infinite.
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
    together = scale * np.sqrt(np.nanmean((table / scale) ** 2, axis=0))
    with np.errstate(invalid="ignore"):  # between two infinite norms there is no number
        low, median, high = np.nanquantile(table, [0.25, 0.5, 0.75], axis=0)
    return Profile(low, median, high, together)


@dataclass(frozen=True)
class Findings:
    """What a run's memory does along some sequences, which may differ in length.

    Args:
        sights: at least one.
        attends: whether the memory has attention that gradients can come through.
    """

    sights: tuple[Sight, ...]
    attends: bool

    def profile(self, of: Callable[[Paths], Tensor]) -> Profile:
        """Return what a quantity [T, B] of :class:`Paths` is along the sequences."""
        return profile_of([of(sight.paths) for sight in self.sights])

    @cached_property
    def curves(self) -> dict[str, Profile]:
        """How far gradients reach: their norms, and the shares that came through attention."""
        curves = {"total": self.profile(lambda paths: paths.total)}
        if self.attends:
            curves["recurrence"] = self.profile(lambda paths: paths.recurrence)
            curves["share"] = self.profile(lambda paths: paths.share)
        return curves

    def curve_rows(self) -> list[dict[str, str]]:
        """Return :attr:`curves` as a table, a line for each number of steps before the end."""
        columns = {
            f"{name}_{part}": values
            for name, profile in self.curves.items()
            for part, values in profile._asdict().items()
        }
        return [
            {"steps_before_end": str(i)}
            | {name: f"{values[i]:.4g}" for name, values in columns.items()}
            for i in range(len(self.curves["total"].median))
        ]

    def mean(self, of: Callable[[Attention], Tensor]) -> float:
        """Return the mean of a quantity [T, B] of what was looked at, over all steps."""
        values = [of(s.look).double().cpu().numpy().ravel() for s in self.sights if s.look]
        return float(np.concatenate(values).mean())

    @cached_property
    def traced(self) -> bool:
        """Whether the memory can tell what it looked at."""
        return all(sight.look is not None for sight in self.sights)

    @cached_property
    def kappa(self) -> int:
        """The most states that attention ran over."""
        return max(int(remembered(sight.look).max()) for sight in self.sights if sight.look)

    def depths(self, *, noticed: bool) -> NDArray[np.int64]:
        """Return how many (step, last step) pairs have dependency depth 0, 1, 2, ..."""
        found = [
            last_step_depths(sight.look, row, noticed=noticed)
            for sight in self.sights
            if sight.look
            for row in range(sight.look.weights.shape[1])
        ]
        return np.bincount(np.concatenate(found))

    def numbers(self) -> dict[str, Any]:
        """Return what is worth a line in a table, as plain values."""
        found: dict[str, Any] = {
            "sequences": sum(sight.paths.total.shape[1] for sight in self.sights),
            "steps": [sight.paths.total.shape[0] for sight in self.sights],
            "gradient_last_tenth": self._end(lambda total, tenth: total[-tenth:]),
            "gradient_first_tenth": self._end(lambda total, tenth: total[:tenth]),
            "steps_without_gradient": self._share(lambda paths: paths.total == 0),
        }
        if self.attends:
            found["gradient_through_attention"] = self._share(lambda paths: paths.share)
        if self.traced:
            found |= {
                "kappa": self.kappa,
                "attention_entropy": self.mean(attention_entropy),
                "attended_age": self.mean(attended_age),
                "depth": _summary(self.depths(noticed=False)),
                "depth_noticed": _summary(self.depths(noticed=True)),
            }
        return found

    def _end(self, part: Callable[[Tensor, int], Tensor]) -> float:
        """The median norm over a tenth of the steps of each sequence."""
        totals = [sight.paths.total for sight in self.sights]
        tenths = [part(total, max(1, len(total) // 10)).flatten() for total in totals]
        return float(torch.cat(tenths).double().quantile(0.5))

    def _share(self, of: Callable[[Paths], Tensor]) -> float:
        values = [of(sight.paths).double().cpu().numpy().ravel() for sight in self.sights]
        return float(np.concatenate(values).mean())


def _summary(counts: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
    """Mean and maximum of a distribution given by its counts, and the counts."""
    depths = np.arange(len(counts))
    return {
        "mean": float((depths * counts).sum() / np.sum(counts)),
        "max": int(depths[-1]),
        "counts": [int(count) for count in counts],
    }
