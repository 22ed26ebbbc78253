"""Attention of a recurrent network to its own past, and the step that every such memory takes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from relagent.memories.base import Attention, Memory
from relagent.memories.cells import LSTMCell, RNNCell
from relagent.memories.errors import MemoryOptionError
from relagent.memories.state import StateT

Combine = Literal["sum", "mean"]
"""How the macro-state is made of h and the context: their sum as in the paper, or their mean as in
its authors' code."""


class AdditiveAttention(nn.Module):
    """Additive attention (Bahdanau et al. 2015; equations 51-53 and 95 of Kerg et al. 2020).

        e_i = v_aᵀ tanh(W_a s + U_a h_i)      α = softmax(e)      context = Σ_i α_i h_i

    The softmax runs over occupied slots only: an empty one gets exactly 0.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query_weight = nn.Parameter(torch.empty(size, size))  # W_a
        self.key_weight = nn.Parameter(torch.empty(size, size))  # U_a
        self.energy_weight = nn.Parameter(torch.empty(size))  # v_a
        nn.init.xavier_uniform_(self.query_weight)
        nn.init.xavier_uniform_(self.key_weight)
        nn.init.xavier_normal_(self.energy_weight.data.view(1, size))

    def forward(self, s: Tensor, states: Tensor, occupied: Tensor) -> tuple[Tensor, Tensor]:
        """Look back from s [B, H] at states [B, K, H] where occupied [B, K].

        Returns:
            The context [B, H] and the weights α [B, K].
        """
        query = (s @ self.query_weight.T).unsqueeze(1)
        energies = torch.tanh(query + states @ self.key_weight.T) @ self.energy_weight
        weights = energies.masked_fill(~occupied, -torch.inf).softmax(dim=1)
        return (weights.unsqueeze(2) * states).sum(dim=1), weights


class Remembered(NamedTuple):
    """The states that a step attends to, M_t; a slot of age -1 is empty."""

    states: Tensor
    """[B, K, H] h_i, with their gradient."""
    scores: Tensor
    """[B, K] running relevance."""
    ages: Tensor
    """[B, K] t - i."""
    admitted: Tensor
    """[B] whether a state moved from the short-term buffer into the relevant set."""
    evicted: Tensor
    """[B] age of the state that was forgotten, -1 for none."""


class AttentiveMemory(Memory[StateT], Generic[StateT]):
    """A recurrent network that attends to its own past (section 3 of Kerg et al. 2020).

    Each step, with s = s_{t-1} (equations 9, 10 and 50-53; the paper's c_t is the context here, and
    c what the cell carries, an LSTM's cell state)::

        h_t, c_t = cell(x_t, s, c_{t-1})          the recurrence reads the macro-state
        M_t = remember(h_t, M_{t-1})              which states are kept: the subclass says
        context_t = Σ_i α_i h_i   over M_t        attention, queried with s
        s_t = f(h_t, context_t)                   f = sum or mean

    Args:
        input_size: F.
        hidden_size: H.
        cell: makes the cell from F and H.
        combine: f, ``sum`` or ``mean``.

    Raises:
        MemoryOptionError: an option that does not exist.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: Callable[[int, int], LSTMCell | RNNCell],
        *,
        combine: Combine = "sum",
    ) -> None:
        super().__init__(input_size, hidden_size)
        if combine not in get_args(Combine):
            raise MemoryOptionError(f"unknown combine {combine!r}: choose sum or mean")
        self.combine = combine
        self.cell = cell(input_size, hidden_size)
        self.attention = AdditiveAttention(hidden_size)

    @abstractmethod
    def remember(self, h: Tensor, state: StateT) -> Remembered:
        """Let h_t [B, H] in: return M_t of M_{t-1} and h_t."""

    @abstractmethod
    def earned(self, weights: Tensor) -> Tensor:
        """Return what each state's score grows by, [B, K], from the weights [B, K] of a step."""

    @abstractmethod
    def next_state(self, s: Tensor, c: Tensor, kept: Remembered) -> StateT:
        """Return the state of s [B, H], the cell's carry c and what is remembered."""

    def attend(self, x: Tensor, state: StateT) -> tuple[Tensor, StateT, Attention]:
        """:meth:`step`, and what it looked at ([B, K] and [B])."""
        s, c, *_ = state
        h, c = self.cell(x, s, c)  # h_t, c_t = cell(x_t, s_{t-1}, c_{t-1})
        kept = self.remember(h, state)  # M_t
        context, weights = self.attention(s, kept.states, kept.ages >= 0)  # Σ_i α_i h_i
        s = self.macro_state(h, context)  # s_t = f(h_t, context_t)

        weights = weights.detach()
        kept = kept._replace(scores=kept.scores + self.earned(weights))
        look = Attention(weights, kept.scores, kept.ages, kept.admitted, kept.evicted)
        return s, self.next_state(s, c, kept), look

    def step(self, x: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """See :meth:`Memory.step`."""
        y, state, _ = self.attend(x, state)
        return y, state

    def macro_state(self, h: Tensor, context: Tensor) -> Tensor:
        """Return s = f(h, context), the sum or the mean."""
        s = h + context
        return s if self.combine == "sum" else s / 2

    def forget(self, state: StateT) -> StateT:
        """See :meth:`Memory.forget`; s and c stay."""
        old, empty = cast(Any, state), cast(Any, self.initial_state(len(state[0])))
        return cast(StateT, empty._replace(s=old.s, c=old.c))

    def trace(
        self, x: Tensor, state: StateT | None = None, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT, Attention]:
        """:meth:`unroll` by its definition, and what it looked at ([T, B, K] and [T, B])."""
        state, starts = self.check_sequence(x, state, episode_starts)
        outputs, looks = [], []
        for x_t, starts_t in zip(x, starts, strict=True):
            y, state, look = self.attend(x_t, self.reset(state, starts_t))
            outputs.append(y)
            looks.append(look)
        slots = max(look.weights.shape[1] for look in looks)
        return torch.stack(outputs), state, Attention(*_stack(looks, slots))


def _stack(looks: list[Attention], slots: int) -> list[Tensor]:
    """Stack steps over time; fewer slots are filled up on the left, where the oldest would be."""

    def widen(tensor: Tensor, value: int) -> Tensor:
        return nn.functional.pad(tensor, (slots - tensor.shape[1], 0), value=value)

    return [
        torch.stack([widen(look.weights, 0) for look in looks]),
        torch.stack([widen(look.relevance, 0) for look in looks]),
        torch.stack([widen(look.ages, -1) for look in looks]),
        torch.stack([look.admitted for look in looks]),
        torch.stack([look.evicted for look in looks]),
    ]
