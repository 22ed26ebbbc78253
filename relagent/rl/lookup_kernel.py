"""The CPU kernel of :func:`relagent.rl.lookup.lookup_max`: the search for the winners."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from relagent.memories.kernels.native import VERSION, entry, over_rows


def winners(tables: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Return argmax_p Σ_i tables[i][rows[i][u, p]], the first of equals: int64 [U, C]."""
    first, *others = (table.numpy() for table in tables)
    first_rows, *other_rows = (row.numpy() for row in rows)
    second, second_rows = (others or [first])[0], (other_rows or [first_rows])[0]
    (U, P), C = first_rows.shape, first.shape[1]
    best = np.empty((U, C), first.dtype)
    # As wide as the values: then the search runs in vector registers.
    won = np.empty((U, C), np.int32 if first.itemsize == 4 else np.int64)
    work = U * P * C * len(tables)
    over_rows(_search, U, work, first, first_rows, second, second_rows, bool(others), best, won)
    return torch.from_numpy(won).long()


@entry
def _search(
    begin: int,
    end: int,
    first: Any,
    first_rows: Any,
    second: Any,
    second_rows: Any,
    both: bool,
    best: Any,
    won: Any,
    version: int = VERSION,
) -> None:
    for u in range(begin, end):
        best[u] = -np.inf
        won[u] = 0
        for p in range(first_rows.shape[1]):
            i, j = first_rows[u, p], second_rows[u, p]
            for k in range(best.shape[1]):
                value = first[i, k]
                if both:
                    value += second[j, k]
                larger = value > best[u, k]
                won[u, k] = p if larger else won[u, k]
                best[u, k] = value if larger else best[u, k]
