"""Sparse attentive backtracking: truncated backpropagation, and shortcuts to a few old states.

Reference: Ke et al. 2018, *Sparse Attentive Backtracking: Temporal Credit Assignment Through
Reminding*.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories.base import Memory
from relagent.memories.cells import LSTMCell
from relagent.memories.errors import MemoryOptionError, check_whole

SMALLEST_SUM = 1e-7
"""Where the best scores tie so closely, attention fades instead of dividing by 0."""


class SABState(NamedTuple):
    """The state of sparse attentive backtracking; the newest state stands at the right end."""

    h: Tensor
    """[B, H] hidden state, the context added."""
    c: Tensor
    """[B, H] LSTM cell."""
    time: Tensor
    """[B] steps since the episode's first, -1 before it."""
    states: Tensor
    """[B, L, H] remembered states; L grows with the longest episode of the batch."""
    occupied: Tensor
    """[B, L] which of them belong to the row's episode."""


class SparseAttention(nn.Module):
    """Attention that is exactly 0 on all but the k best of the remembered states.

        e_i = wᵀ [tanh q; m_i]
        α_i = max(e_i - e*, 0) / Σ_j max(e_j - e*, 0)      e* the (k + 1)-th largest of the e_i

    As long as at most k are remembered there is no e*: then α = softmax(e). If the k + 1 best tie
    within 1e-7, α fades to 0 instead of dividing by 0. The score being linear, the query's share
    is the same for every i and drops out of α.
    """

    def __init__(self, size: int, k_top: int) -> None:
        super().__init__()
        self.k_top = k_top
        self.energy_weight = nn.Parameter(torch.empty(2 * size))  # w
        nn.init.xavier_normal_(self.energy_weight.data.view(1, 2 * size))

    def forward(self, query: Tensor, states: Tensor, occupied: Tensor) -> tuple[Tensor, Tensor]:
        """Look back from q [B, H] at states [B, L, H] where occupied [B, L].

        Returns:
            The context Σ α_i m_i [B, H] and the weights α [B, L]; both 0 for an empty row.
        """
        w_query, w_state = self.energy_weight.chunk(2)
        energies = (query.tanh() @ w_query).unsqueeze(1) + states @ w_state
        # The lowest number instead of -∞: softmax stays finite in a row that remembers nothing.
        energies = energies.masked_fill(~occupied, torch.finfo(energies.dtype).min)
        weights = energies.softmax(dim=1) * occupied
        if states.shape[1] > self.k_top:
            threshold = energies.topk(self.k_top + 1, dim=1).values[:, -1:]
            many = occupied.sum(dim=1, keepdim=True) > self.k_top
            above = (energies - threshold.where(many, 0)).relu()
            total = above.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SUM)
            weights = torch.where(many, above / total, weights)
        return (weights.unsqueeze(1) @ states).squeeze(1), weights


class SAB(Memory[SABState]):
    """Sparse attentive backtracking (Ke et al. 2018).

    At step t = 0, 1, ... of an episode::

        ĥ, c' = LSTM(x, h, c)            h and c cut off from the gradient where k_trunc divides t
        m = Σ_i α_i m_i                  over M, on the k_top best: see SparseAttention
        h' = ĥ + m
        M' = M ∪ {ĥ}                     where k_att divides t + 1, else M
        y = h' + P m

    The gradient runs through at most k_trunc steps of the recurrence, and through the attention
    to the few states of the past that were found worth it, and on from there. A linear layer V
    on y computes V h' + (V P) m: the paper's output V_1 h' + V_2 m, in the interface of all
    memories. The counter t is kept row by row.

    Args:
        input_size: F.
        hidden_size: H.
        k_att: every how many steps a state is remembered.
        k_top: how many remembered states are attended to at most.
        k_trunc: after how many steps the recurrence is cut off.

    Raises:
        MemoryOptionError: one of the three is below 1, or no whole number.
    """

    growing = ("states", "occupied")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        k_att: int = 2,
        k_top: int = 10,
        k_trunc: int = 10,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_whole(k_att=k_att, k_top=k_top, k_trunc=k_trunc)
        if min(k_att, k_top, k_trunc) < 1:
            raise MemoryOptionError(
                f"k_att={k_att}, k_top={k_top}, k_trunc={k_trunc} cannot work: each counts steps "
                "or states; choose at least 1"
            )
        self.k_att = int(k_att)
        self.k_trunc = int(k_trunc)
        self.cell = LSTMCell(input_size, hidden_size)
        self.attention = SparseAttention(hidden_size, int(k_top))
        self.context_weight = nn.Parameter(torch.empty(hidden_size, hidden_size))  # P
        nn.init.xavier_uniform_(self.context_weight)

    def initial_state(self, batch: int) -> SABState:
        """See :meth:`Memory.initial_state`; nothing is remembered yet: L = 0."""
        return SABState(
            h=self.zeros(batch, self.hidden_size),
            c=self.zeros(batch, self.hidden_size),
            time=torch.full_like(self.zeros(batch), -1, dtype=torch.int64),
            states=self.zeros(batch, 0, self.hidden_size),
            occupied=self.zeros(batch, 0).bool(),
        )

    def step(self, x: Tensor, state: SABState) -> tuple[Tensor, SABState]:
        """See :meth:`Memory.step`."""
        time = state.time + 1
        cut = (time % self.k_trunc == 0).unsqueeze(1)
        h = torch.where(cut, state.h.detach(), state.h)
        c = torch.where(cut, state.c.detach(), state.c)

        h, c = self.cell(x, h, c)
        context, _ = self.attention(h, state.states, state.occupied)

        # M' = M ∪ {ĥ}: a new slot for all rows, empty in those whose turn it is not.
        states, occupied = state.states, state.occupied
        joins = ((time + 1) % self.k_att == 0).unsqueeze(1)
        if joins.any():
            states = torch.cat([states, torch.where(joins, h, 0).unsqueeze(1)], dim=1)
            occupied = torch.cat([occupied, joins], dim=1)

        h = h + context
        y = h + context @ self.context_weight.T
        return y, SABState(h, c, time, states, occupied)

    def forget(self, state: SABState) -> SABState:
        """See :meth:`Memory.forget`; h and c stay, the count of steps begins anew."""
        return self.initial_state(len(state.h))._replace(h=state.h, c=state.c)

    def reset(self, state: SABState, episode_starts: Tensor) -> SABState:
        """See :meth:`Memory.reset`; slots that no row needs any more are dropped."""
        after = super().reset(state, episode_starts)
        return after if after is state else self.without_slots(after, after.occupied.any(dim=0))
