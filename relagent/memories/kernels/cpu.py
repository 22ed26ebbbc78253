"""Fused LSTM, RelLSTM, MemLSTM, RelRNN and MemRNN on the CPU: torch outside, compiled loops inside.

Importing this module registers the kernels (and loads numba). Each is one autograd function around
:func:`~relagent.memories.kernels.recurrent.forward` and ``backward``; acting, which needs no
gradient, calls the same loop directly. A second derivative raises torch's error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from relagent.memories.attention import AdditiveAttention
from relagent.memories.base import AnyState, Memory
from relagent.memories.cells import LSTMCell, ModReLU, RNNCell
from relagent.memories.full import FullMemory, FullState, MemLSTM, MemRNN
from relagent.memories.kernels import layouts, records, recurrent, register
from relagent.memories.kernels.attention import BLOCK
from relagent.memories.kernels.native import over_rows
from relagent.memories.kernels.product import PANEL
from relagent.memories.kernels.records import FULL, PLAIN, RELEVANCY, Plan
from relagent.memories.lstm import LSTM, LSTMState
from relagent.memories.relevancy import RelevancyMemory, RelevancyState, RelLSTM, RelRNN

_CELLS = {
    "tanh": (records.TANH, nn.Tanh),
    "relu": (records.RELU, nn.ReLU),
    "modrelu": (records.MODRELU, ModReLU),
}


class _Parameters(NamedTuple):
    """The parameters of a memory as its kernel takes them; those that it lacks are empty."""

    input: Tensor
    """[G·n, F] W."""
    recurrent: Tensor
    """[G·n, n] R."""
    bias: Tensor
    """[G·n]."""
    query: Tensor
    """[n, n] W_a."""
    key: Tensor
    """[n, n] U_a."""
    energy: Tensor
    """[n] v_a."""
    threshold: Tensor
    """[n] bias of modReLU."""


class _Carried(NamedTuple):
    """The incoming state as the kernel takes it: see :class:`records.Carried`."""

    s: Tensor
    c: Tensor
    states: Tensor
    scores: Tensor
    ages: Tensor


class _Result(NamedTuple):
    """What :func:`_forward` computes."""

    y: Tensor
    """[T, B, n]."""
    states: Tensor
    """[B, κ, n] remembered at the end (RELEVANCY)."""
    scores: Tensor
    ages: Tensor
    trail: tuple[Tensor, ...]
    """See :class:`records.Trail`."""


def _panels(matrix: Tensor) -> Tensor:
    """Lay a matrix out as products with it read it: see :mod:`kernels.product`."""
    depth, width = matrix.shape
    return matrix.reshape(depth, width // PANEL, PANEL).transpose(0, 1)


def _scratch(y: Any, slots: int) -> Any:
    """Return room to work in, for y [T, B, n]."""
    _, B, n = y.shape
    vectors = np.empty((4, B, n), y.dtype)
    return records.Scratch(
        np.empty((B, BLOCK, n), y.dtype),
        np.empty((B, slots), y.dtype),
        np.empty((B, slots), np.int32),
        *vectors,
    )


def _array(tensor: Tensor) -> Any:
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _laid_out(parameters: _Parameters) -> records.Weights:
    """Return the weights as the forward pass reads them."""
    known = layouts() if isinstance(parameters.recurrent, nn.Parameter) else None
    key = tuple(parameter.data_ptr() for parameter in parameters)
    if known is not None and key in known:
        return cast(records.Weights, known[key])
    tensors = records.Weights(
        input=_panels(parameters.input.t()),
        recurrent=_panels(torch.cat([parameters.recurrent, parameters.query]).t()),
        key=_panels(parameters.key.t()),
        bias=torch.cat([parameters.bias, parameters.bias.new_zeros(len(parameters.query))]),
        energy=parameters.energy,
        threshold=parameters.threshold,
    )
    weights = records.Weights(*(_array(tensor.contiguous()) for tensor in tensors))
    if known is not None:
        known[key] = weights
    return weights


def _forward(
    plan: Plan, x: Tensor, starts: Tensor, before: _Carried, parameters: _Parameters
) -> _Result:
    """Allocate, lay out the weights, and run the loop over the rows."""
    T, B, _ = x.shape
    incoming, n = before.states.shape[1:]
    weights = _laid_out(parameters)
    columns = len(weights.bias)
    looks = plan.remember != PLAIN
    slots = incoming + T
    int32 = torch.int32
    trail = records.Trail(
        s=x.new_empty(T, B, n),
        gates=x.new_empty(T, B, columns),
        cells=x.new_empty(T, B, before.c.shape[1]),
        history=x.new_empty(B, slots, n),
        keys=x.new_empty(B, slots if looks else 0, n),
        places=x.new_empty(T, B, incoming if plan.remember == RELEVANCY else 0, dtype=int32),
        first=x.new_empty(T, B if plan.remember == FULL else 0, dtype=int32),
        log_total=x.new_empty(T, B if looks else 0),
    )
    y = x.new_empty(T, B, n)
    handed_on = incoming if plan.remember == RELEVANCY else 0
    after = records.HandedOn(
        states=x.new_empty(B, handed_on, n),
        scores=x.new_empty(B, slots if plan.remember == FULL else incoming),
        ages=before.ages.new_empty(B, handed_on),
    )
    work = 2.0 * T * B * (columns + n) * (x.shape[2] + n) + 2.0 * B * incoming * n * n
    over_rows(
        recurrent.forward,
        B,
        work,
        plan,
        weights,
        _array(x),
        starts.numpy(),
        records.Carried(*map(_array, before)),
        records.HandedOn(*map(_array, after)),
        records.Trail(*map(_array, trail)),
        y.numpy(),
        _scratch(y.numpy(), slots),
    )
    return _Result(y, after.states, after.scores, after.ages, tuple(trail))


def _last_states(plan: Plan, result: _Result) -> tuple[Tensor, Tensor]:
    """Return what is remembered at the end, [B, L', n], and (FULL) whether occupied [B, L']."""
    if plan.remember != FULL:
        return result.states, result.ages
    trail = records.Trail(*result.trail)
    first = trail.first[-1]
    slots = torch.arange(int(first.min()), trail.history.shape[1])
    occupied = slots >= first[:, None]
    states = trail.history[:, slots[0] :]
    return torch.where(occupied.unsqueeze(2), states, 0), occupied


class _Sequence(torch.autograd.Function):
    """The recurrence over a sequence, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        starts: Tensor,
        scores: Tensor,
        ages: Tensor,
        x: Tensor,
        s: Tensor,
        c: Tensor,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        before = _Carried(s, c, states, scores, ages)
        result = _forward(plan, x, starts, before, _Parameters(*parameters))
        ctx.plan, ctx.consumed = plan, False
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, starts, *before, *parameters, *result.trail, result.y)
        last, occupied = _last_states(plan, result)
        cell = records.Trail(*result.trail).cells[-1].clone()
        ctx.mark_non_differentiable(result.scores, result.ages, occupied)
        return result.y, cell, last, result.scores, result.ages, occupied

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_y: Tensor | None,
        d_cell: Tensor | None,
        d_last: Tensor | None,
        *_: None,
    ) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        saved = list(ctx.saved_tensors)
        x, starts = saved[:2]
        before = _Carried(*saved[2:7])
        parameters = _Parameters(*saved[7:14])
        trail = records.Trail(*saved[14:-1])
        y = saved[-1]
        if ctx.consumed:  # an earlier backward pass over the same graph has written to the trail
            trail = records.Trail(*_forward(plan, x, starts, before, parameters).trail)
        ctx.consumed = True
        T, B, n = y.shape
        looks = plan.remember != PLAIN
        gates = len(parameters.bias)

        d_y = torch.zeros_like(y) if d_y is None else d_y.contiguous()
        d_history = torch.zeros_like(trail.history) if looks else x.new_zeros(0, 0, n)
        if looks and d_last is not None:
            _scatter_last(plan, trail, d_last, d_history)
        gradients = records.Gradients(
            bias=x.new_zeros(B, trail.gates.shape[2]),
            history=d_history,
            keys=torch.zeros_like(trail.keys),
            s=x.new_zeros(B, n),
            c=torch.zeros_like(before.c) if d_cell is None else d_cell.clone(),
            energy=x.new_zeros(B, n),
            threshold=x.new_zeros(B, n),
        )
        joint = torch.cat([parameters.recurrent, parameters.query])
        weights = records.Weights(
            input=parameters.input,
            recurrent=_panels(joint),
            key=_panels(parameters.key),
            bias=parameters.bias,
            energy=parameters.energy,
            threshold=parameters.threshold,
        )
        over_rows(
            recurrent.backward,
            B,
            4.0 * T * B * len(joint) * n,
            plan,
            records.Weights(*(_array(w.contiguous()) for w in weights)),
            starts.numpy(),
            records.Carried(*map(_array, before)),
            records.Trail(*map(_array, trail)),
            y.numpy(),
            _array(d_y),
            records.Gradients(*map(_array, gradients)),
            _scratch(y.numpy(), trail.history.shape[1]),
        )

        # The parameters' gradients, each as one product over all steps and rows.
        d_columns = trail.gates.view(T * B, -1)
        d_gates = d_columns[:, :gates]
        d_joint = (trail.s.view(T * B, n).T @ d_columns).T
        d_states = d_key = None
        if looks:
            incoming = before.states.shape[1]
            keys_in = gradients.keys[:, :incoming]
            d_states = d_history[:, :incoming] + keys_in @ parameters.key
            d_key = gradients.keys.view(-1, n).T @ trail.history.view(-1, n)
        needs = dict(zip(_Parameters._fields, ctx.needs_input_grad[8:], strict=True))
        return (
            *(None, None, None, None),
            (d_gates @ parameters.input).view_as(x) if ctx.needs_input_grad[4] else None,
            gradients.s,
            gradients.c,
            d_states,
            (x.reshape(T * B, -1).T @ d_gates).T,
            d_joint[:gates],
            gradients.bias.sum(dim=0)[:gates],
            d_joint[gates:] if looks else None,
            d_key,
            gradients.energy.sum(dim=0) if looks else None,
            gradients.threshold.sum(dim=0) if needs["threshold"] else None,
        )


def _scatter_last(plan: Plan, trail: Any, d_last: Tensor, d_history: Tensor) -> None:
    """Give the gradient of what is remembered at the end to the history that it was read from."""
    if plan.remember == RELEVANCY:
        places = trail.places[-1].long().unsqueeze(2).expand_as(d_last)
        d_history.scatter_add_(1, places.clamp(min=0), torch.where(places >= 0, d_last, 0))
    else:
        first = trail.first[-1]
        slots = torch.arange(d_history.shape[1] - d_last.shape[1], d_history.shape[1])
        occupied = (slots >= first[:, None]).unsqueeze(2)
        d_history[:, slots[0] :] += torch.where(occupied, d_last, 0)


def _run(
    plan: Plan, x: Tensor, starts: Tensor, before: _Carried, parameters: _Parameters
) -> tuple[Tensor, ...]:
    """Return y, the last cell, and the states, scores, ages and occupation at the end."""
    x, before = x.contiguous(), _Carried(*(tensor.contiguous() for tensor in before))
    starts = starts.contiguous()
    differentiable = (x, before.s, before.c, before.states, *parameters)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable):
        return _Sequence.apply(  # type: ignore[no-any-return,no-untyped-call]  # torch's
            plan, starts, before.scores, before.ages, *differentiable
        )
    result = _forward(plan, x, starts, before, parameters)
    cell = records.Trail(*result.trail).cells[-1].clone()
    last, occupied = _last_states(plan, result)
    return result.y, cell, last, result.scores, result.ages, occupied


def _widened(parameters: _Parameters, n: int, extra: int) -> _Parameters:
    """Add ``extra`` units to n; every weight from and to them is 0, and so they stay 0."""
    pad = nn.functional.pad
    W, R, b, *rest = parameters
    gates = len(b) // n
    return _Parameters(
        pad(W.view(gates, n, -1), (0, 0, 0, extra)).flatten(0, 1),
        pad(R.view(gates, n, n), (0, extra, 0, extra)).flatten(0, 1),
        pad(b.view(gates, n), (0, extra)).flatten(),
        *(pad(w, [0, extra] * (w.dim() if len(w) else w.dim() - 1)) for w in rest),
    )


def _run_any_width(
    plan: Plan, x: Tensor, starts: Tensor, before: _Carried, parameters: _Parameters
) -> tuple[Tensor, ...]:
    """:func:`_run` for any n."""
    n = before.s.shape[1]
    extra = -n % PANEL
    if extra == 0:
        return _run(plan, x, starts, before, parameters)
    widths = (extra, extra if before.c.numel() else 0, extra, 0, 0)
    wide = _Carried(*(nn.functional.pad(t, (0, e)) for t, e in zip(before, widths, strict=True)))
    y, c, states, *rest = _run(plan, x, starts, wide, _widened(parameters, n, extra))
    return y[..., :n], c[..., :n], states[..., :n], *rest


def _untouched(module: nn.Module, kind: type) -> bool:
    """Whether calling the module computes what its class says, and nothing else happens."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return type(module) is kind and not hooks and "forward" not in vars(module)


def _fits(x: Tensor, state: AnyState, parameters: _Parameters) -> bool:
    """Whether the kernel computes the definition here; otherwise the definition runs itself."""
    dtype = x.dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(t.dtype == dtype for t in state if t.is_floating_point())
        and all(t.dtype == dtype and t.device.type == "cpu" for t in parameters)
        and not torch.is_autocast_enabled("cpu")
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


def _attentive(memory: Any, remember: int) -> tuple[Plan, _Parameters] | None:
    """Return the plan and the parameters of a memory with attention, or ``None``."""
    cell = _cell(memory)
    if cell is None or not _untouched(memory.attention, AdditiveAttention):
        return None
    number, threshold = cell
    attention = memory.attention
    parameters = _Parameters(
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
    memory: LSTM, x: Tensor, state: LSTMState, starts: Tensor
) -> tuple[Tensor, LSTMState]:
    """:meth:`LSTM.unroll`."""
    cell, (h, c) = memory.cell, state
    B, n = h.shape
    none = h.new_zeros(B, 0, n)
    before = _Carried(h, c, none, h.new_zeros(B, 0), starts.new_zeros(B, 0, dtype=torch.int64))
    empty = h.new_zeros(0, n)
    parameters = _Parameters(
        cell.input_weight, cell.recurrent_weight, cell.bias, empty, empty, empty[:, 0], empty[:, 0]
    )
    if not (_untouched(cell, LSTMCell) and _fits(x, state, parameters)):
        return memory.unroll_definition(x, state, starts)
    plan = Plan(PLAIN, records.LSTM, False, 0)
    y, c, *_ = _run_any_width(plan, x, starts, before, parameters)
    return y, LSTMState(y[-1], c)


def unroll_relevancy(
    memory: RelevancyMemory, x: Tensor, state: RelevancyState, starts: Tensor
) -> tuple[Tensor, RelevancyState]:
    """:meth:`RelevancyMemory.unroll`."""
    known = _attentive(memory, RELEVANCY)
    if known is None or not _fits(x, state, known[1]):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    y, c, states, scores, ages, _ = _run_any_width(plan, x, starts, _Carried(*state), parameters)
    return y, RelevancyState(y[-1], c, states, scores, ages)


def unroll_full(
    memory: FullMemory, x: Tensor, state: FullState, starts: Tensor
) -> tuple[Tensor, FullState]:
    """:meth:`FullMemory.unroll`."""
    known = _attentive(memory, FULL)
    if known is None or not _fits(x, state, known[1]):
        return memory.unroll_definition(x, state, starts)
    plan, parameters = known
    ages = torch.where(state.occupied, 0, -1)
    before = _Carried(state.s, state.c, state.states, state.scores, ages)
    y, c, states, scores, _, occupied = _run_any_width(plan, x, starts, before, parameters)
    kept = occupied.shape[1]
    scores = torch.where(occupied, scores[:, scores.shape[1] - kept :], 0)
    return y, FullState(y[-1], c, states, occupied, scores)


_KERNELS: dict[type[Memory[Any]], Callable[..., tuple[Tensor, Any]]] = {
    LSTM: unroll_plain,
    RelLSTM: unroll_relevancy,
    RelRNN: unroll_relevancy,
    MemLSTM: unroll_full,
    MemRNN: unroll_full,
}
for _memory, _kernel in _KERNELS.items():
    register(f"{_memory.__module__}.{_memory.__qualname__}", "cpu", _kernel)
