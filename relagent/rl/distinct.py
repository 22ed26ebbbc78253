"""Which rows of integers are equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MULTIPLIERS: dict[tuple[int, torch.device], Tensor] = {}


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Group equal rows.

    Rows are compared by a 64-bit multilinear hash (Dietzfelbinger 1996); the grouping is then
    checked exactly, so that a collision costs time but never correctness.

    Args:
        rows: [N, K] integers.

    Returns:
        The index [U] of one representative for each distinct row, and for each row the number of
        its group [N]: ``rows[first][group]`` equals ``rows``.
    """
    hashes = (rows.long() * _multipliers(rows.shape[1], rows.device)).sum(dim=1)
    _, group, counts = torch.unique(hashes, return_inverse=True, return_counts=True)
    first = _first_of_each(group, len(counts))
    if not torch.equal(rows[first][group], rows):
        _, group, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
        first = _first_of_each(group, len(counts))
    return first, group


def distinct_numbers(numbers: Tensor, below: int) -> tuple[Tensor, Tensor]:
    """Group equal numbers of a small range, as ``torch.unique`` does, without sorting them.

    Args:
        numbers: integers from 0 to ``below``, of any shape.
        below: more than the largest.

    Returns:
        The distinct numbers [U], ascending, and for each number its place among them.
    """
    there = torch.zeros(below, dtype=torch.bool, device=numbers.device)
    there[numbers] = True
    return there.nonzero().squeeze(1), (there.cumsum(0) - 1)[numbers]


def _first_of_each(group: Tensor, groups: int) -> Tensor:
    order = torch.arange(len(group), device=group.device)
    first = torch.full((groups,), len(group), dtype=torch.int64, device=group.device)
    return first.scatter_reduce_(0, group, order, reduce="amin")


def _multipliers(columns: int, device: torch.device) -> Tensor:
    """Return fixed random 64-bit numbers, from a generator of their own."""
    known = _MULTIPLIERS.get((columns, device))
    if known is None:
        generator = torch.Generator().manual_seed(0x5EED)
        bounds = torch.iinfo(torch.int64)
        known = torch.randint(bounds.min, bounds.max, (columns,), generator=generator).to(device)
        _MULTIPLIERS[columns, device] = known
    return known


class RowNumbers:
    """Rows of bytes, numbered as they come: equal rows, of whatever batch, have one number."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def number(self, *parts: Tensor) -> tuple[Tensor, list[int]]:
        """Number rows.

        Args:
            parts: [N, ...] on the CPU; the n-th row is the n-th of each.

        Returns:
            Numbers [N], and those of the N that came for the first time.
        """
        flat = [np.ascontiguousarray(part.flatten(1).numpy()).view(np.uint8) for part in parts]
        rows = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
        numbers, new = [], []
        keys: list[Any] = rows.view(np.dtype((np.void, rows.shape[1]))).ravel().tolist()  # of bytes
        for n, row in enumerate(keys):
            following = len(self._numbers)
            number = self._numbers.setdefault(row, following)
            if number == following:
                new.append(n)
            numbers.append(number)
        return torch.tensor(numbers), new


class RowMemo:
    """Results by row, of a function that stays the same over many batches."""

    def __init__(self) -> None:
        self._rows = RowNumbers()
        self._results: Tensor | None = None

    def get(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the result of each row [N, ...]; ``compute`` gets only rows that are new."""
        numbers, new = self._rows.number(rows)
        if new:
            results = compute(rows[new])
            self._results = (
                results if self._results is None else torch.cat([self._results, results])
            )
        assert self._results is not None
        return self._results[numbers]
