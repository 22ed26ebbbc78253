"""Memories without attention: none at all, LSTM and GRU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories.base import Memory
from relagent.memories.cells import LSTMCell


class NoState(NamedTuple):
    """Nothing is carried; the tensor only knows the batch size."""

    nothing: Tensor
    """[B, 0]."""


class NoMemory(Memory[NoState]):
    """A feed-forward layer: the control that remembers nothing.

    y = tanh(W x + b)
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.layer = nn.Linear(input_size, hidden_size)

    def initial_state(self, batch: int) -> NoState:
        """See :meth:`Memory.initial_state`."""
        return NoState(self.zeros(batch, 0))

    def step(self, x: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        """See :meth:`Memory.step`."""
        return self.layer(x).tanh(), state

    def unroll_definition(
        self, x: Tensor, state: NoState, episode_starts: Tensor
    ) -> tuple[Tensor, NoState]:
        """See :meth:`Memory.unroll`; with nothing to carry, all steps are one."""
        return self.layer(x).tanh(), state


class LSTMState(NamedTuple):
    """The state of an LSTM."""

    h: Tensor
    """[B, H] hidden state."""
    c: Tensor
    """[B, H] cell."""


class LSTM(Memory[LSTMState]):
    """Long short-term memory; the cell is :class:`~relagent.memories.cells.LSTMCell`."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = LSTMCell(input_size, hidden_size)

    def initial_state(self, batch: int) -> LSTMState:
        """See :meth:`Memory.initial_state`."""
        return LSTMState(self.zeros(batch, self.hidden_size), self.zeros(batch, self.hidden_size))

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """See :meth:`Memory.step`."""
        h, c = self.cell(x, state.h, state.c)
        return h, LSTMState(h, c)


class GRUState(NamedTuple):
    """The state of a GRU."""

    h: Tensor
    """[B, H] hidden state."""


class GRU(Memory[GRUState]):
    """Gated recurrent unit (Cho et al. 2014), in cuDNN's form (reset gate after the product).

    r, z = σ(W x + R h + b)
    n = tanh(W_n x + b_n + r ⊙ (R_n h + d))
    h' = (1 - z) ⊙ n + z ⊙ h
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size))
        for gate in range(3):
            rows = slice(gate * hidden_size, (gate + 1) * hidden_size)
            nn.init.xavier_uniform_(self.input_weight.data[rows])
            nn.init.orthogonal_(self.recurrent_weight.data[rows])

    def initial_state(self, batch: int) -> GRUState:
        """See :meth:`Memory.initial_state`."""
        return GRUState(self.zeros(batch, self.hidden_size))

    def step(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """See :meth:`Memory.step`."""
        h = state.h
        x_r, x_z, x_n = (x @ self.input_weight.T + self.bias).chunk(3, dim=1)
        h_r, h_z, h_n = (h @ self.recurrent_weight.T).chunk(3, dim=1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * (h_n + self.candidate_bias)).tanh()
        h = (1 - z) * n + z * h
        return h, GRUState(h)
