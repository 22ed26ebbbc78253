"""Which symbols' states a model of the copy task lives on.

Relevancy screening may keep the state of each of the ten symbols through the whole delay. Once the
last of them has moved from the short-term buffer into the relevant set, some are taken out of it,
and the model goes on as ever: what it still recalls, it recalls by what was left. The places that
become free are taken by the states that leave the buffer next, made after the symbols.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relagent.analysis.sequences import Sequences
from relagent.memories import Attention
from relagent.memories.relevancy import RelevancyMemory, RelevancyState
from relagent.tasks.copy import LENGTH


class SymbolStates(NamedTuple):
    """What each symbol's state is good for, symbol by symbol [10]; shares of right answers."""

    recalled: Tensor
    """How often this symbol is recalled."""
    attention: Tensor
    """Weight of its state, on the mean over the delay."""
    alone: Tensor
    """All answers that are right if only its state is left in the relevant set."""
    without: Tensor
    """All answers that are right if only its state is taken out."""
    none: Tensor
    """All answers that are right if every symbol's state is taken out; a number."""


def symbol_states(sequences: Sequences, look: Attention) -> SymbolStates | None:
    """Measure what the symbols' states are good for.

    Args:
        sequences: of the copy task.
        look: what the memory looked at along them.

    Returns:
        ``None`` where the memory has no relevant set, or no step lies between the one at which the
        last symbol's state can enter it and the marker.
    """
    memory, steps = sequences.memory, len(sequences.x)
    due = steps - LENGTH
    if not isinstance(memory, RelevancyMemory) or memory.rho == 0:
        return None
    if LENGTH + memory.nu >= due - 1:
        return None
    entered = LENGTH + memory.nu  # steps until the short-term buffer holds none of them
    with torch.no_grad():
        start = memory.initial_state(sequences.x.shape[1])
        before, state = memory.unroll(sequences.x[:entered], start)
        made = entered - 1 - state.ages  # [B, ρ + ν] the step that made each state
        made[:, memory.rho :] = steps  # what is in the buffer stays

        def right(kept: Tensor) -> Tensor:
            """The right answers [10, B], with only these symbols' states [K] kept."""
            gone = (made < LENGTH) & ~torch.isin(made, kept)
            after, _ = memory.unroll(sequences.x[entered:], take_out(state, gone))
            guesses = sequences.head(torch.cat([before, after])).argmax(dim=2)
            hits: Tensor = guesses == sequences.batch.targets
            return hits[-LENGTH:].double()

        symbols = torch.arange(LENGTH, device=made.device)
        return SymbolStates(
            recalled=right(symbols).mean(dim=1),
            attention=_delay_attention(look, entered, due - 1),
            alone=torch.stack([right(one.unsqueeze(0)).mean() for one in symbols]),
            without=torch.stack([right(symbols[symbols != one]).mean() for one in symbols]),
            none=right(symbols[:0]).mean(),
        )


def take_out(state: RelevancyState, gone: Tensor) -> RelevancyState:
    """Empty slots [B, ρ + ν] of a state."""
    return state._replace(
        states=torch.where(gone.unsqueeze(2), 0, state.states),
        scores=torch.where(gone, 0, state.scores),
        ages=torch.where(gone, -1, state.ages),
    )


def _delay_attention(look: Attention, begin: int, end: int) -> Tensor:
    """Mean weight of each symbol's state [10] over the steps from ``begin`` to before ``end``."""
    ages, weights = look.ages[begin:end], look.weights[begin:end].double()
    steps = torch.arange(begin, end, device=ages.device).view(-1, 1, 1)
    made = torch.where(ages >= 0, steps - ages, -1)
    shares = [torch.where(made == symbol, weights, 0).sum(dim=2).mean() for symbol in range(LENGTH)]
    return torch.stack(shares)
