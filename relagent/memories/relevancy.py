"""Sparse attention: RelLSTM and RelRNN remember the last ν states and the ρ most relevant ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories.attention import AttentiveMemory, Combine, Remembered
from relagent.memories.cells import LSTMCell, RNNCell
from relagent.memories.errors import MemoryOptionError, check_whole


class RelevancyState(NamedTuple):
    """The state of a relevancy-screening memory.

    Slots 0 .. ρ-1 are the relevant set R; slots ρ .. ρ+ν-1 are the short-term buffer S, in order
    of time, the newest state in the last slot.
    """

    s: Tensor
    """[B, H] macro-state s_{t-1}."""
    c: Tensor
    """[B, H] LSTM cell (or [B, 0])."""
    states: Tensor
    """[B, ρ + ν, H] remembered hidden states, with their gradient."""
    scores: Tensor
    """[B, ρ + ν] running relevance; it grows while in S and is frozen in R."""
    ages: Tensor
    """[B, ρ + ν] steps since the state was made, -1 for an empty slot."""


class RelevancyMemory(AttentiveMemory[RelevancyState]):
    """A recurrent network that attends to κ = ν + ρ states (section 4 of Kerg et al. 2020).

        M_t = S_t ∪ R_t

    Relevancy screening, row by row, when h_t enters a full S:

    1. the oldest state leaves S; its score is the sum of the ν weights that it earned there;
    2. it takes an empty slot of R if there is one; otherwise the slot of R's lowest score (the
       first of equals), if its own score is strictly higher; otherwise it is forgotten.

    Then one softmax runs over S ∪ R, and the members of S add their weight to their score. Only
    scores are cut off from the gradient; the remembered states keep theirs.

    Args:
        input_size: F.
        hidden_size: H.
        cell: see :class:`AttentiveMemory`.
        nu: ν ≥ 1, length of the short-term buffer.
        rho: ρ ≥ 0, size of the relevant set; 0 attends to the short-term buffer alone.
        combine: see :class:`AttentiveMemory`.

    Raises:
        MemoryOptionError: ν < 1 or ρ < 0, or no whole number.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: Callable[[int, int], LSTMCell | RNNCell],
        *,
        nu: int = 5,
        rho: int = 5,
        combine: Combine = "sum",
    ) -> None:
        super().__init__(input_size, hidden_size, cell, combine=combine)
        check_whole(nu=nu, rho=rho)
        if nu < 1 or rho < 0:
            raise MemoryOptionError(
                f"nu={nu}, rho={rho} cannot work: the short-term buffer needs nu of at least 1 "
                "(a state earns its relevance there), the relevant set rho of at least 0"
            )
        self.nu = int(nu)
        self.rho = int(rho)

    def initial_state(self, batch: int) -> RelevancyState:
        """See :meth:`Memory.initial_state`."""
        slots = self.rho + self.nu
        return RelevancyState(
            s=self.zeros(batch, self.hidden_size),
            c=self.zeros(batch, self.cell.carry_size),
            states=self.zeros(batch, slots, self.hidden_size),
            scores=self.zeros(batch, slots),
            ages=torch.full_like(self.zeros(batch, slots), -1, dtype=torch.int64),
        )

    def remember(self, h: Tensor, state: RelevancyState) -> Remembered:
        """M_t = S_t ∪ R_t: h enters the short-term buffer, a place is found for what leaves it."""
        ages = torch.where(state.ages >= 0, state.ages + 1, -1)
        R, S = slice(None, self.rho), slice(self.rho, None)

        # The oldest state of S leaves: is it more relevant than the least relevant one of R?
        leaving = self.rho
        leaver_score, leaver_age = state.scores[:, leaving], ages[:, leaving]
        admitted = torch.zeros_like(leaver_age, dtype=torch.bool)
        evicted = leaver_age
        here = torch.zeros_like(ages[:, R], dtype=torch.bool)
        if self.rho > 0:
            # An empty slot has -∞, so that it is taken first.
            rivals = torch.where(ages[:, R] >= 0, state.scores[:, R], -torch.inf)
            lowest, slot = rivals.min(dim=1)
            admitted = (leaver_age >= 0) & (leaver_score > lowest)
            here = admitted.unsqueeze(1) & (
                torch.arange(self.rho, device=h.device) == slot[:, None]
            )
            evicted = torch.where(admitted, ages[:, R].gather(1, slot[:, None])[:, 0], leaver_age)

        def enter(old: Tensor, new: Tensor) -> Tensor:
            """R takes the leaver where it was admitted, S moves on by one and takes the new."""
            mask = here.view(*here.shape, *[1] * (old.dim() - 2))
            relevant = torch.where(mask, old[:, leaving : leaving + 1], old[:, R])
            return torch.cat([relevant, old[:, S][:, 1:], new.unsqueeze(1)], dim=1)

        return Remembered(
            states=enter(state.states, h),
            scores=enter(state.scores, torch.zeros_like(leaver_score)),
            ages=enter(ages, torch.zeros_like(leaver_age)),
            admitted=admitted,
            evicted=evicted,
        )

    def earned(self, weights: Tensor) -> Tensor:
        """Only the short-term buffer earns relevance."""
        return nn.functional.pad(weights[:, self.rho :], (self.rho, 0))

    def next_state(self, s: Tensor, c: Tensor, kept: Remembered) -> RelevancyState:
        """See :meth:`AttentiveMemory.next_state`."""
        return RelevancyState(s, c, kept.states, kept.scores, kept.ages)


class RelLSTM(RelevancyMemory):
    """LSTM with relevancy screening (Kerg et al. 2020).

    Args:
        input_size: F.
        hidden_size: H.
        nu: ν ≥ 1, length of the short-term buffer.
        rho: ρ ≥ 0, size of the relevant set.
        combine: f, ``sum`` or ``mean``; see :class:`AttentiveMemory`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nu: int = 5,
        rho: int = 5,
        combine: Combine = "sum",
    ) -> None:
        super().__init__(input_size, hidden_size, LSTMCell, nu=nu, rho=rho, combine=combine)


class RelRNN(RelevancyMemory):
    """RNN with relevancy screening (Kerg et al. 2020).

    Args:
        input_size: F.
        hidden_size: H.
        nu: ν ≥ 1, length of the short-term buffer.
        rho: ρ ≥ 0, size of the relevant set.
        combine: f, ``sum`` or ``mean``; see :class:`AttentiveMemory`.
        nonlinearity: φ; see :class:`~relagent.memories.cells.RNNCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nu: int = 5,
        rho: int = 5,
        combine: Combine = "sum",
        nonlinearity: str = "tanh",
    ) -> None:
        cell = partial(RNNCell, nonlinearity=nonlinearity)
        super().__init__(input_size, hidden_size, cell, nu=nu, rho=rho, combine=combine)
