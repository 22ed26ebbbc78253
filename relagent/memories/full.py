"""Full attention: MemLSTM and MemRNN remember every hidden state of the episode."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories.attention import AttentiveMemory, Combine, Remembered
from relagent.memories.cells import LSTMCell, RNNCell


class FullState(NamedTuple):
    """The state of a memory that remembers all; the newest state stands at the right end."""

    s: Tensor
    """[B, H] macro-state s_{t-1}."""
    c: Tensor
    """[B, H] LSTM cell (or [B, 0])."""
    states: Tensor
    """[B, L, H] remembered hidden states; L grows with the longest episode of the batch."""
    occupied: Tensor
    """[B, L] which of them belong to the row's episode."""
    scores: Tensor
    """[B, L] running relevance: all the attention that a state has earned."""


class FullMemory(AttentiveMemory[FullState]):
    """A recurrent network that attends to every earlier state of its episode.

    M_t = {h_1, ..., h_t}
    """

    growing = ("states", "occupied", "scores")

    def initial_state(self, batch: int) -> FullState:
        """See :meth:`Memory.initial_state`; nothing is remembered yet: L = 0."""
        return FullState(
            s=self.zeros(batch, self.hidden_size),
            c=self.zeros(batch, self.cell.carry_size),
            states=self.zeros(batch, 0, self.hidden_size),
            occupied=self.zeros(batch, 0).bool(),
            scores=self.zeros(batch, 0),
        )

    def remember(self, h: Tensor, state: FullState) -> Remembered:
        """M_t = M_{t-1} ∪ {h_t}: nothing is forgotten."""
        states = torch.cat([state.states, h.unsqueeze(1)], dim=1)
        occupied = nn.functional.pad(state.occupied, (0, 1), value=True)
        ages = torch.arange(states.shape[1] - 1, -1, -1, device=h.device)
        return Remembered(
            states=states,
            scores=nn.functional.pad(state.scores, (0, 1)),
            ages=torch.where(occupied, ages, -1),
            admitted=torch.zeros_like(occupied[:, 0]),
            evicted=torch.full_like(ages[:1], -1).expand(len(h)),
        )

    def earned(self, weights: Tensor) -> Tensor:
        """Every state earns its weight, as long as the episode lasts."""
        return weights

    def next_state(self, s: Tensor, c: Tensor, kept: Remembered) -> FullState:
        """See :meth:`AttentiveMemory.next_state`."""
        return FullState(s, c, kept.states, kept.ages >= 0, kept.scores)

    def reset(self, state: FullState, episode_starts: Tensor) -> FullState:
        """See :meth:`Memory.reset`; slots that no row needs any more are dropped."""
        after = super().reset(state, episode_starts)
        return after if after is state else self.without_slots(after, after.occupied.any(dim=0))


class MemLSTM(FullMemory):
    """LSTM with full self-attention (Kerg et al. 2020).

    Args:
        input_size: F.
        hidden_size: H.
        combine: f, ``sum`` or ``mean``; see :class:`AttentiveMemory`.
    """

    def __init__(self, input_size: int, hidden_size: int, *, combine: Combine = "sum") -> None:
        super().__init__(input_size, hidden_size, LSTMCell, combine=combine)


class MemRNN(FullMemory):
    """RNN with full self-attention (Kerg et al. 2020, after Bahdanau et al. 2015).

    Args:
        input_size: F.
        hidden_size: H.
        combine: f, ``sum`` or ``mean``; see :class:`AttentiveMemory`.
        nonlinearity: φ; see :class:`~relagent.memories.cells.RNNCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        combine: Combine = "sum",
        nonlinearity: str = "tanh",
    ) -> None:
        cell = partial(RNNCell, nonlinearity=nonlinearity)
        super().__init__(input_size, hidden_size, cell, combine=combine)
