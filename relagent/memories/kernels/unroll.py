"""The memories' ``unroll`` by a backend: which memories and inputs it fits, and the wiring."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from relagent.memories.attention import AdditiveAttention
from relagent.memories.base import AnyState, Memory
from relagent.memories.cells import LSTMCell, ModReLU, RNNCell
from relagent.memories.full import FullMemory, FullState, MemLSTM, MemRNN
from relagent.memories.kernels import records, register
from relagent.memories.kernels.records import FULL, PLAIN, RELEVANCY, Carried, Plan
from relagent.memories.kernels.sequence import Backend, Parameters, run
from relagent.memories.lstm import LSTM, LSTMState
from relagent.memories.relevancy import RelevancyMemory, RelevancyState, RelLSTM, RelRNN

_CELLS = {
    "tanh": (records.TANH, nn.Tanh),
    "relu": (records.RELU, nn.ReLU),
    "modrelu": (records.MODRELU, ModReLU),
}


def _untouched(module: nn.Module, kind: type) -> bool:
    """Whether calling the module computes what its class says, and nothing else happens."""
    hooks = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
    return type(module) is kind and not hooks and "forward" not in vars(module)


def _fits(x: Tensor, state: AnyState, parameters: Parameters) -> bool:
    """Whether the kernel computes the definition here; otherwise the definition runs itself."""
    dtype = x.dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(t.dtype == dtype for t in state if t.is_floating_point())
        and all(t.dtype == dtype and t.device == x.device for t in parameters)
        and not torch.is_autocast_enabled(x.device.type)
        and x.shape[1] > 0
    )


def _cell(memory: Any) -> tuple[int, Tensor] | None:
    """Return the cell's number and modReLU's bias, or ``None`` where it is not a known one."""
    cell = memory.cell
    if _untouched(cell, LSTMCell):
        return records.LSTM, cell.bias.new_zeros(0)
    if not _untouched(cell, RNNCell):
        return None
    number, kind = _CELLS[cell.nonlinearity_name]
    if not _untouched(cell.nonlinearity, kind):
        return None
    return number, cell.nonlinearity.bias if number == records.MODRELU else cell.bias.new_zeros(0)


def _attentive(memory: Any, remember: int) -> tuple[Plan, Parameters] | None:
    """Return the plan and the parameters of a memory with attention, or ``None``."""
    cell = _cell(memory)
    if cell is None or not _untouched(memory.attention, AdditiveAttention):
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


def unroll_plain(
    backend: Backend, memory: LSTM, x: Tensor, state: LSTMState, starts: Tensor
) -> tuple[Tensor, LSTMState]:
    """:meth:`LSTM.unroll`."""
    cell, (h, c) = memory.cell, state
    B, n = h.shape
    none = h.new_zeros(B, 0, n)
    before = Carried(h, c, none, h.new_zeros(B, 0), starts.new_zeros(B, 0, dtype=torch.int64))
    empty = h.new_zeros(0, n)
    parameters = Parameters(
        cell.input_weight, cell.recurrent_weight, cell.bias, empty, empty, empty[:, 0], empty[:, 0]
    )
    if not (_untouched(cell, LSTMCell) and _fits(x, state, parameters)):
        return memory.unroll_definition(x, state, starts)
    plan = Plan(PLAIN, records.LSTM, False, 0)
    y, c, *_ = run(backend, plan, x, starts, before, parameters)
    return y, LSTMState(y[-1].clone(), c)


def unroll_relevancy(
    backend: Backend, memory: RelevancyMemory, x: Tensor, state: RelevancyState, starts: Tensor
) -> tuple[Tensor, RelevancyState]:
    """:meth:`RelevancyMemory.unroll`."""
    known = _attentive(memory, RELEVANCY)
    if known is None or not _fits(x, state, known[1]):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    y, c, states, scores, ages, _ = run(backend, plan, x, starts, Carried(*state), parameters)
    return y, RelevancyState(y[-1].clone(), c, states, scores, ages)


def unroll_full(
    backend: Backend, memory: FullMemory, x: Tensor, state: FullState, starts: Tensor
) -> tuple[Tensor, FullState]:
    """:meth:`FullMemory.unroll`."""
    known = _attentive(memory, FULL)
    if known is None or not _fits(x, state, known[1]):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    ages = torch.where(state.occupied, 0, -1)
    before = Carried(state.s, state.c, state.states, state.scores, ages)
    y, c, states, scores, _, occupied = run(backend, plan, x, starts, before, parameters)
    kept = occupied.shape[1]
    scores = torch.where(occupied, scores[:, scores.shape[1] - kept :], 0)
    return y, FullState(y[-1].clone(), c, states, occupied, scores)


ATTENTIVE: dict[type[Memory[Any]], Any] = {
    RelLSTM: unroll_relevancy,
    RelRNN: unroll_relevancy,
    MemLSTM: unroll_full,
    MemRNN: unroll_full,
}
ALL: dict[type[Memory[Any]], Any] = {LSTM: unroll_plain, **ATTENTIVE}
"""Memories that kernels exist for, and their ``unroll``."""


def register_all(device_type: str, backend: Backend, unrolls: dict[type[Memory[Any]], Any]) -> None:
    """Make a backend's kernels of these memories those of a kind of device."""
    for memory, unroll in unrolls.items():
        name = f"{memory.__module__}.{memory.__qualname__}"
        register(name, device_type, partial(unroll, backend))
