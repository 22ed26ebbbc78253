"""The largest sum of table rows over many places, one channel at a time."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from relagent.memories import kernels


def lookup_max(tables: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Return max_p Σ_i tables[i][rows[i][u, p]] for each u and each channel.

    The search for the winners needs no gradient, and only the winners get one: the backward pass
    costs the same however many places there are. Among equals the first place wins.

    Args:
        tables: one or two of [R_i, C].
        rows: as many of [U, P], int64.

    Returns:
        [U, C].
    """
    with torch.no_grad():
        won = _winners(tables, rows)  # [U, C]
    channels = torch.arange(won.shape[1], device=won.device)
    values = [
        table.flatten()[row.gather(1, won) * len(channels) + channels]
        for table, row in zip(tables, rows, strict=True)
    ]
    return sum(values[1:], values[0])


def _winners(tables: list[Tensor], rows: list[Tensor]) -> Tensor:
    if kernels.enabled() and tables[0].device.type == "cpu":
        try:
            from relagent.rl.lookup_kernel import winners  # compiles: only where it is needed
        except ImportError:
            pass  # the memories' kernels, which are asked for first, say so
        else:
            return winners(tables, rows)
    sums = sum(table[row] for table, row in zip(tables, rows, strict=True))  # [U, P, C]
    return cast(Tensor, sums).argmax(dim=1)
