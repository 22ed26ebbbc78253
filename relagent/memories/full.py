"""Full attention: MemLSTM and MemRNN remember every hidden state of the episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from relagent.memories.attention import AttentiveMemory
from relagent.memories.base import Attention


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

    def initial_state(self, batch: int) -> FullState:
        """See :meth:`Memory.initial_state`; nothing is remembered yet: L = 0."""
        return FullState(
            s=self.zeros(batch, self.hidden_size),
            c=self.zeros(batch, self.cell.carry_size),
            states=self.zeros(batch, 0, self.hidden_size),
            occupied=self.zeros(batch, 0).bool(),
            scores=self.zeros(batch, 0),
        )

    def _checked_state(self, state: FullState, x: Tensor) -> FullState:
        state = super()._checked_state(state, x)
        self._check_lengths(states=state.states, occupied=state.occupied, scores=state.scores)
        return state

    def attend(self, x: Tensor, state: FullState) -> tuple[Tensor, FullState, Attention]:
        """See :meth:`AttentiveMemory.attend`."""
        h, c = self.cell(x, state.s, state.c)

        # M_t = M_{t-1} ∪ {h_t}
        states = torch.cat([state.states, h.unsqueeze(1)], dim=1)
        occupied = torch.cat([state.occupied, torch.ones_like(h[:, :1], dtype=torch.bool)], dim=1)

        context, weights = self.attention(state.s, states, occupied)
        s = self.macro_state(h, context)
        scores = weights.detach() + torch.nn.functional.pad(state.scores, (0, 1))

        ages = torch.arange(states.shape[1] - 1, -1, -1, device=x.device)
        look = Attention(
            weights=weights.detach(),
            relevance=scores,
            ages=torch.where(occupied, ages, -1),
            admitted=torch.zeros_like(occupied[:, 0]),
            evicted=torch.full_like(ages[:1], -1).expand(len(x)),
        )
        return s, FullState(s, c, states, occupied, scores), look

    def reset(self, state: FullState, episode_starts: Tensor) -> FullState:
        """See :meth:`Memory.reset`; slots that no row needs any more are dropped."""
        after = super().reset(state, episode_starts)
        if after is state or (used := after.occupied.any(dim=0)).all():
            return after
        return after._replace(
            states=after.states[:, used],
            occupied=after.occupied[:, used],
            scores=after.scores[:, used],
        )


class MemLSTM(FullMemory):
    """LSTM with full self-attention (Kerg et al. 2020)."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, cell="lstm", **options)


class MemRNN(FullMemory):
    """RNN with full self-attention (Kerg et al. 2020, after Bahdanau et al. 2015)."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, cell="rnn", **options)
