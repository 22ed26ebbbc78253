"""The plain recurrent network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relagent.memories.cells import RNNCell
from relagent.memories.projected import ProjectedMemory


class RNNState(NamedTuple):
    """The state of a recurrent network without gates."""

    h: Tensor
    """[B, H] hidden state."""


class RNN(ProjectedMemory[RNNState]):
    """The plain recurrent network (Elman 1990).

        h' = φ(U x + V h + b)      y = h'

    V starts orthogonal, drawn uniformly. The cell is :class:`~relagent.memories.cells.RNNCell`.

    Args:
        input_size: F.
        hidden_size: H.
        nonlinearity: φ, one of ``tanh``, ``relu``, ``modrelu``.

    Raises:
        MemoryOptionError: an unknown nonlinearity.
    """

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh") -> None:
        super().__init__(input_size, hidden_size)
        self.cell = RNNCell(input_size, hidden_size, nonlinearity)

    def initial_state(self, batch: int) -> RNNState:
        """See :meth:`Memory.initial_state`."""
        return RNNState(self.zeros(batch, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """Return U x + b."""
        return x @ self.cell.input_weight.T + self.cell.bias

    def recurrent_matrix(self) -> Tensor:
        """Return V [H, H]."""
        return self.cell.recurrent_weight

    def advance(self, p: Tensor, state: RNNState, R: Tensor) -> tuple[Tensor, RNNState]:
        """See :meth:`ProjectedMemory.advance`."""
        h = self.cell.nonlinearity(torch.addmm(p, state.h, R.T)).to(state.h.dtype)
        return h, RNNState(h)
