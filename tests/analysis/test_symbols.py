"""What is measured of the symbols' states is what taking them out of the relevant set does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from relagent.analysis.sequences import Sequences
from relagent.analysis.symbols import SymbolStates, symbol_states, take_out
from relagent.memories import Attention, Memory, make_memory
from relagent.memories.relevancy import RelevancyMemory
from relagent.tasks.copy import LENGTH, Copy

T = 20


def sequences(memory: Memory[Any], count: int = 6) -> Sequences:
    torch.manual_seed(1)
    head = nn.Linear(memory.hidden_size, Copy.n_classes)
    batch = Copy(T, 1).batch(torch.Generator().manual_seed(2), count)
    return Sequences(memory, batch.x, head, batch)


def relevancy(nu: int = 4, rho: int = 10, name: str = "rel") -> RelevancyMemory:
    torch.manual_seed(0)
    memory = make_memory(name, Copy.input_size, 8, nu=nu, rho=rho)
    assert isinstance(memory, RelevancyMemory)
    return memory


def measured(memory: RelevancyMemory) -> tuple[Sequences, SymbolStates]:
    taken = sequences(memory)
    look = memory.trace(taken.x, memory.initial_state(taken.x.shape[1]))[2]
    states = symbol_states(taken, look)
    assert states is not None
    return taken, states


@pytest.mark.parametrize("name", ["rel", "rel-rnn"])
def test_with_all_states_in_place_the_answers_are_those_of_the_model(name: str) -> None:
    taken, states = measured(relevancy(name=name))
    outputs, _ = taken.memory.unroll(taken.x, taken.memory.initial_state(6))
    assert states.recalled.shape == (LENGTH,)
    assert states.recalled.mean() == pytest.approx(taken.right(outputs))


def test_a_relevant_set_of_one_symbol_lives_on_that_symbol() -> None:
    # Every state but the first is screened out, since the first earns the most: it is alone first.
    memory = relevancy(rho=1)
    taken, states = measured(memory)
    _, state = memory.unroll(taken.x[: LENGTH + memory.nu], memory.initial_state(6))
    assert (state.ages[:, 0] == LENGTH + memory.nu - 1).all()
    everything = states.recalled.mean()
    assert states.alone[0] == everything
    assert (states.alone[1:] == states.none).all()
    assert states.without[0] == states.none
    assert (states.without[1:] == everything).all()


def test_attention_in_the_delay_is_that_of_the_trace() -> None:
    memory = relevancy(rho=1)
    taken, states = measured(memory)
    look = memory.trace(taken.x, memory.initial_state(6))[2]
    delay = look.weights[LENGTH + memory.nu : T + LENGTH - 1, :, 0]  # of the only slot of the set
    assert states.attention[0] == pytest.approx(float(delay.mean()))
    assert (states.attention[1:] == 0).all()


def test_what_was_taken_out_leaves_no_trace() -> None:
    memory = relevancy()
    x = torch.randn(3, 2, Copy.input_size)
    _, state = memory.unroll(torch.randn(20, 2, Copy.input_size), memory.initial_state(2))
    gone = torch.zeros_like(state.ages, dtype=torch.bool)
    gone[0, :3] = True
    spoilt = state._replace(states=torch.where(gone.unsqueeze(2), torch.nan, state.states))
    outputs, _ = memory.unroll(x, take_out(spoilt, gone))
    assert outputs.isfinite().all()
    clean, _ = memory.unroll(x, state)
    assert torch.equal(outputs[:, 1], clean[:, 1]) and not torch.equal(outputs[:, 0], clean[:, 0])
    look: Attention = memory.trace(x[:1], take_out(spoilt, gone))[2]
    # One of the three is filled at once by the state that leaves the buffer.
    assert int((look.ages[0, 0] < 0).sum()) == 2


def test_there_is_nothing_to_measure_without_a_relevant_set_or_in_too_short_a_delay() -> None:
    memory = make_memory("mem", Copy.input_size, 8)
    taken = sequences(memory)
    assert symbol_states(taken, memory.trace(taken.x, memory.initial_state(6))[2]) is None
    memory = make_memory("rel", Copy.input_size, 8, nu=1, rho=0)
    taken = sequences(memory)
    assert symbol_states(taken, memory.trace(taken.x, memory.initial_state(6))[2]) is None
    late = relevancy(nu=T)
    taken = sequences(late)
    assert symbol_states(taken, late.trace(taken.x, late.initial_state(6))[2]) is None
