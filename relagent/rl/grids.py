"""Grids told apart: which observations show the same grid, and which cells are of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relagent.rl.distinct import RowMemo, RowNumbers, distinct_numbers, distinct_rows


class GridIndex(NamedTuple):
    """U grids of P cells, by kinds of cells and by missions that occur in them."""

    kinds: Tensor
    """[K, 3] distinct (object, colour, state) codes."""
    kind: Tensor
    """[U, P] each cell's kind."""
    missions: Tensor | None
    """[M, L] distinct missions as word ids; ``None`` where there are none."""
    mission: Tensor | None
    """[U] each grid's mission."""

    @classmethod
    def of(cls, codes: Sequence[int], image: Tensor, mission: Tensor | None) -> GridIndex:
        """Index grids.

        Args:
            codes: how many objects, colours and states there are.
            image: [U, V, V, 3] codes of their cells.
            mission: [U, L] word ids.
        """
        cells = image.flatten(1, 2).long()
        _, colours, states = codes
        number = (cells[..., 0] * colours + cells[..., 1]) * states + cells[..., 2]  # [U, P]
        numbers, kind = distinct_numbers(number, math.prod(codes))
        kinds = [numbers // (colours * states), numbers // states % colours, numbers % states]
        if mission is None:
            return cls(torch.stack(kinds, dim=1), kind, None, None)
        rows, reads = distinct_rows(mission)
        return cls(torch.stack(kinds, dim=1), kind, mission[rows], reads)

    def take(self, grids: Tensor) -> GridIndex:
        """Return the index of the given grids [U']; missions that none of them has are left out."""
        if self.mission is None or self.missions is None:
            return self._replace(kind=self.kind[grids])
        used, mission = distinct_numbers(self.mission[grids], len(self.missions))
        return self._replace(kind=self.kind[grids], missions=self.missions[used], mission=mission)


class KnownGrids:
    """The distinct grids of a rollout (on the CPU), numbered as they come.

    Numbered observations carry the number as ``grid`` [N]: while acting, a grid that came before is
    not encoded again, and the update need not look for equal ones.
    """

    def __init__(self) -> None:
        self._grids = RowNumbers()
        self._rows: list[tuple[Tensor, Tensor | None]] = []  # image and mission, by number
        self._encoded = 0  # chunks of rows
        self._index: GridIndex | None = None
        self._features: Tensor | None = None
        self.missions = RowMemo()
        """What missions were read as; without gradient, under constant weights."""

    def number(self, observations: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return observations [N, ...] with their numbers."""
        image, mission = observations["image"], observations.get("mission")
        parts = (image,) if mission is None else (image, mission)
        numbers, new = self._grids.number(*parts)
        if new:
            self._rows.append((image[new], None if mission is None else mission[new]))
            self._index = None
        return {**observations, "grid": numbers}

    def index(self, codes: Sequence[int]) -> GridIndex:
        """Return the index of all grids, by number; see :meth:`GridIndex.of`."""
        if self._index is None:
            self._index = GridIndex.of(codes, *_joined(self._rows))
        return self._index

    def features(
        self, numbers: Tensor, encode: Callable[[Tensor, Tensor | None], Tensor]
    ) -> Tensor:
        """Return what ``encode`` makes of the grids of these numbers [N]: [N, F].

        It is given images [U, V, V, 3] and missions [U, L], each pair once, and must stay the same
        function.
        """
        if self._encoded < len(self._rows):
            new = encode(*_joined(self._rows[self._encoded :]))
            self._features = new if self._features is None else torch.cat([self._features, new])
            self._encoded = len(self._rows)
        assert self._features is not None
        return self._features[numbers]


def _joined(rows: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    images, missions = zip(*rows, strict=True)
    return torch.cat(images), None if missions[0] is None else torch.cat(missions)
