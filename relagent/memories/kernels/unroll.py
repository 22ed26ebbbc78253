"""The memories' ``unroll`` by a backend: which memories and inputs it fits, and the wiring."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.parametrize import type_before_parametrizations

from relagent.memories.attention import AdditiveAttention
from relagent.memories.base import Memory
from relagent.memories.cells import LSTMCell, ModReLU, RNNCell
from relagent.memories.full import FullMemory, FullState, MemLSTM, MemRNN
from relagent.memories.goru import GORU, GORUState
from relagent.memories.kernels import records, register
from relagent.memories.kernels.records import FULL, PLAIN, RELEVANCY, Carried, Plan
from relagent.memories.kernels.sequence import Backend, Parameters, run
from relagent.memories.lstm import GRU, LSTM, GRUState, LSTMState
from relagent.memories.orthogonal import ExpRNN, OrthRNN
from relagent.memories.relevancy import RelevancyMemory, RelevancyState, RelLSTM, RelRNN
from relagent.memories.rnn import RNN, RNNState
from relagent.memories.state import AnyState, StateT, make_state

_CELLS = {
    "tanh": (records.TANH, nn.Tanh),
    "relu": (records.RELU, nn.ReLU),
    "modrelu": (records.MODRELU, ModReLU),
}


def untouched(module: nn.Module, kind: type) -> bool:
    """Whether calling the module computes what its class says, and nothing else happens."""
    hooks = (
        _has_any_global_hook()  # type: ignore[no-untyped-call]  # torch has no types there
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
    return type(module) is kind and not hooks and "forward" not in vars(module)


def fits(x: Tensor, state: AnyState, parameters: tuple[Tensor, ...]) -> bool:
    """Whether the kernel computes the definition here; otherwise the definition runs itself."""
    dtype = x.dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(t.dtype == dtype for t in state if t.is_floating_point())
        and all(t.dtype == dtype and t.device == x.device for t in parameters)
        and not torch.is_autocast_enabled(x.device.type)
        and x.shape[1] > 0
    )


def _pays(backend: Backend, plan: Plan, x: Tensor, state: AnyState) -> bool:
    """Whether the backend is faster than the definition here."""
    return backend.pays(plan, len(x), state[0].shape[1])


def _cell(memory: Any) -> tuple[int, Tensor] | None:
    """Return the cell's number and modReLU's bias, or ``None`` where it is not a known one."""
    cell = memory.cell
    if untouched(cell, LSTMCell):
        return records.LSTM, cell.bias.new_zeros(0)
    return _nonlinearity(cell) if untouched(cell, RNNCell) else None


def _nonlinearity(cell: Any) -> tuple[int, Tensor] | None:
    """:func:`_cell` of an RNN's."""
    number, kind = _CELLS[cell.nonlinearity_name]
    if not untouched(cell.nonlinearity, kind):
        return None
    return number, cell.nonlinearity.bias if number == records.MODRELU else cell.bias.new_zeros(0)


def _attentive(memory: Any, remember: int) -> tuple[Plan, Parameters] | None:
    """Return the plan and the parameters of a memory with attention, or ``None``."""
    cell = _cell(memory)
    if cell is None or not untouched(memory.attention, AdditiveAttention):
        return None
    number, threshold = cell
    attention = memory.attention
    parameters = Parameters(
        memory.cell.input_weight,
        memory.cell.recurrent_weight,
        memory.cell.bias,
        attention.query_weight,
        attention.key_weight,
        attention.energy_weight,
        threshold,
    )
    rho = memory.rho if remember == RELEVANCY else 0
    return Plan(remember, number, memory.combine == "mean", rho), parameters


def _plain(cell: Any, recurrent: Tensor, threshold: Tensor) -> Parameters:
    """Return the parameters of a cell without attention."""
    none = recurrent.new_zeros(0, recurrent.shape[1])
    return Parameters(cell.input_weight, recurrent, cell.bias, none, none, none[:, 0], threshold)


def _carried(h: Tensor, c: Tensor) -> Carried:
    """Return what a memory without attention is handed."""
    B, n = h.shape
    ages = torch.zeros(B, 0, dtype=torch.int64, device=h.device)
    return Carried(h, c, h.new_zeros(B, 0, n), h.new_zeros(B, 0), ages)


def unroll_lstm(
    backend: Backend, memory: LSTM, x: Tensor, state: LSTMState, starts: Tensor
) -> tuple[Tensor, LSTMState]:
    """:meth:`LSTM.unroll`."""
    cell = memory.cell
    parameters = _plain(cell, cell.recurrent_weight, cell.bias.new_zeros(0))
    plan = Plan(PLAIN, records.LSTM, False, 0)
    known = untouched(cell, LSTMCell) and fits(x, state, parameters)
    if not (known and _pays(backend, plan, x, state)):
        return memory.unroll_definition(x, state, starts)
    y, c, *_ = run(backend, plan, x, starts, _carried(*state), parameters)
    return y, LSTMState(y[-1].clone(), c)


def _unroll_plain(
    backend: Backend,
    cell: int,
    lay_out: Callable[[], Parameters],
    memory: Memory[StateT],
    x: Tensor,
    state: StateT,
    starts: Tensor,
) -> tuple[Tensor, StateT]:
    """Unroll a memory whose state is its output h alone.

    Its parameters are laid out only where the kernel pays: that takes time of its own.
    """
    plan = Plan(PLAIN, cell, False, 0)
    if not (_pays(backend, plan, x, state) and fits(x, state, parameters := lay_out())):
        return memory.unroll_definition(x, state, starts)
    (h,) = state
    y, *_ = run(backend, plan, x, starts, _carried(h, h[:, :0]), parameters)
    return y, make_state(state, [y[-1].clone()])


def _gated(
    W: Tensor, R: Tensor, bias: Tensor, candidate_bias: Tensor, threshold: Tensor
) -> Parameters:
    """Return the parameters of a GRU or GORU: what its candidate reads of h is a gate of its own.

    Args:
        W: [3 n, F], for r, z and the candidate.
        R: [3 n, n] alike.
        bias: [3 n] alike.
        candidate_bias: [n] of what the candidate reads of h.
        threshold: [n] of modReLU, or [0].
    """
    n = R.shape[1]
    none = R.new_zeros(0, n)
    return Parameters(
        nn.functional.pad(W, (0, 0, 0, n)),
        torch.cat([R[: 2 * n], torch.zeros_like(R[:n]), R[2 * n :]]),
        torch.cat([bias, candidate_bias]),
        *(none, none, none[:, 0], threshold),
    )


def unroll_gru(
    backend: Backend, memory: GRU, x: Tensor, state: GRUState, starts: Tensor
) -> tuple[Tensor, GRUState]:
    """:meth:`GRU.unroll`."""

    def lay_out() -> Parameters:
        return _gated(
            memory.input_weight,
            memory.recurrent_weight,
            memory.bias,
            memory.candidate_bias,
            memory.bias.new_zeros(0),
        )

    return _unroll_plain(backend, records.GRU, lay_out, memory, x, state, starts)


def unroll_goru(
    backend: Backend, memory: GORU, x: Tensor, state: GORUState, starts: Tensor
) -> tuple[Tensor, GORUState]:
    """:meth:`GORU.unroll`; its rotation is multiplied out, once a sequence."""
    if not untouched(memory.nonlinearity, ModReLU):
        return memory.unroll_definition(x, state, starts)

    def lay_out() -> Parameters:
        n = memory.hidden_size
        return _gated(
            memory.input_weight,
            memory.recurrent_matrix(),
            nn.functional.pad(memory.bias, (0, n)),
            memory.bias.new_zeros(n),
            memory.nonlinearity.bias,
        )

    return _unroll_plain(backend, records.GORU, lay_out, memory, x, state, starts)


def unroll_rnn(
    backend: Backend, memory: RNN, x: Tensor, state: RNNState, starts: Tensor
) -> tuple[Tensor, RNNState]:
    """:meth:`RNN.unroll`; V may be a function of parameters, as expRNN's is."""
    cell: Any = memory.cell  # only its parameters are used, so that hooks of its own do not matter
    known = _nonlinearity(cell) if type_before_parametrizations(cell) is RNNCell else None
    if known is None:
        return memory.unroll_definition(x, state, starts)
    number, threshold = known

    def lay_out() -> Parameters:
        return _plain(cell, memory.recurrent_matrix(), threshold)

    return _unroll_plain(backend, number, lay_out, memory, x, state, starts)


def unroll_relevancy(
    backend: Backend, memory: RelevancyMemory, x: Tensor, state: RelevancyState, starts: Tensor
) -> tuple[Tensor, RelevancyState]:
    """:meth:`RelevancyMemory.unroll`."""
    known = _attentive(memory, RELEVANCY)
    if known is None or not (fits(x, state, known[1]) and _pays(backend, known[0], x, state)):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    y, c, states, scores, ages, _ = run(backend, plan, x, starts, Carried(*state), parameters)
    return y, RelevancyState(y[-1].clone(), c, states, scores, ages)


def unroll_full(
    backend: Backend, memory: FullMemory, x: Tensor, state: FullState, starts: Tensor
) -> tuple[Tensor, FullState]:
    """:meth:`FullMemory.unroll`."""
    known = _attentive(memory, FULL)
    if known is None or not (fits(x, state, known[1]) and _pays(backend, known[0], x, state)):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    ages = torch.where(state.occupied, 0, -1)
    before = Carried(state.s, state.c, state.states, state.scores, ages)
    y, c, states, scores, _, occupied = run(backend, plan, x, starts, before, parameters)
    kept = occupied.shape[1]
    if (incoming := kept - len(x)) > 0:  # a slot that came in empty is empty still
        occupied[:, :incoming] &= state.occupied[:, -incoming:]
    scores = torch.where(occupied, scores[:, scores.shape[1] - kept :], 0)
    return y, FullState(y[-1].clone(), c, states, occupied, scores)


UNROLLS: dict[type[Memory[Any]], Any] = {
    LSTM: unroll_lstm,
    GRU: unroll_gru,
    GORU: unroll_goru,
    RNN: unroll_rnn,
    OrthRNN: unroll_rnn,
    ExpRNN: unroll_rnn,
    RelLSTM: unroll_relevancy,
    RelRNN: unroll_relevancy,
    MemLSTM: unroll_full,
    MemRNN: unroll_full,
}
"""Memories that kernels exist for, and their ``unroll``."""


def register_all(device_type: str, backend: Backend) -> None:
    """Make a backend's kernels those of a kind of device."""
    for memory, unroll in UNROLLS.items():
        name = f"{memory.__module__}.{memory.__qualname__}"
        register(name, device_type, partial(unroll, backend))
