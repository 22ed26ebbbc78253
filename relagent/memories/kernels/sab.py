"""Sparse attentive backtracking on the CPU: the recurrence over a sequence, and its gradient.

Scores are linear in what is remembered, and the query's share in them drops out (see
:class:`~relagent.memories.sab.SparseAttention`). So a state is scored once, as it joins, and the
k_top + 1 best so far are all that a step need look at. The linear layers around the recurrence are
left to torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from relagent.memories.cells import LSTMCell
from relagent.memories.kernels.attention import add_scaled, copy, dot, fill
from relagent.memories.kernels.cells import lstm, lstm_backward
from relagent.memories.kernels.native import (
    VERSION,
    as_array,
    borrowed,
    entry,
    jit,
    over_rows,
    wide_vectors,
)
from relagent.memories.kernels.product import PANEL, add_product, panels
from relagent.memories.kernels.sequence import Parameters, once, one_by_one, widened
from relagent.memories.kernels.transcendental import exp
from relagent.memories.kernels.unroll import fits, untouched
from relagent.memories.sab import SAB, SMALLEST_SUM, SABState, SparseAttention

TOGETHER = 16
"""Rows that go through a sequence together."""


class Rule(NamedTuple):
    """The options of :class:`~relagent.memories.sab.SAB`."""

    k_att: int
    k_top: int
    k_trunc: int
    smallest_sum: float = SMALLEST_SUM


class Trail(NamedTuple):
    """What a sequence leaves behind for its gradient."""

    s: Any
    """[T, B, n] the state that each step read: h of the step before, or 0 at an episode's start."""
    gates: Any
    """[T, B, 4 n] W x + b; then the gates after their nonlinearities."""
    cells: Any
    """[T, B, n]."""
    history: Any
    """[B, L + T, n] the L states that came in, then ĥ_1 .. ĥ_T, whether they joined or not."""
    energies: Any
    """[B, L + T] wᵀ m, of those that are remembered."""
    best: Any
    """[T, B, k_top + 1] int32: places in the history of the best, best first; then -1."""
    time: Any
    """[T, B] steps since the episode's first."""


@jit
def _insert(best: Any, energies: Any, place: int) -> None:
    """Enter a state among the best; of equals the older goes first."""
    at = best.shape[0]
    while at > 0 and (best[at - 1] < 0 or energies[best[at - 1]] < energies[place]):
        at -= 1
    for i in range(best.shape[0] - 1, at, -1):
        best[i] = best[i - 1]
    if at < best.shape[0]:
        best[at] = place


@jit
def _weigh(rule: Rule, best: Any, energies: Any, alphas: Any) -> Any:
    """Write α [k_top + 1]; return what the differences sum to, where α is made of differences."""
    k_top = rule.k_top
    total = alphas.dtype.type(0)
    fill(alphas, total)
    if best[k_top] >= 0:
        for i in range(k_top):
            alphas[i] = energies[best[i]] - energies[best[k_top]]
            total += alphas[i]
        for i in range(k_top):
            alphas[i] /= max(total, alphas.dtype.type(rule.smallest_sum))
        return total
    for i in range(k_top):
        if best[i] >= 0:
            alphas[i] = exp(energies[best[i]] - energies[best[0]])
            total += alphas[i]
    for i in range(k_top):
        if best[i] >= 0:
            alphas[i] /= total
    return total


@jit
def _weigh_backward(
    rule: Rule, best: Any, alphas: Any, total: Any, d_alphas: Any, d_energies: Any
) -> None:
    """Add to ``d_energies`` [L + T]; the arguments before ``d_alphas`` are of :func:`_weigh`."""
    k_top = rule.k_top
    smallest = alphas.dtype.type(rule.smallest_sum)
    mean = dot(alphas, d_alphas)
    if best[k_top] < 0:
        for i in range(k_top):
            if best[i] >= 0:
                d_energies[best[i]] += alphas[i] * (d_alphas[i] - mean)
        return
    if total < smallest:  # a constant divides
        total, mean = smallest, alphas.dtype.type(0)
    for i in range(k_top):
        if alphas[i] > 0:
            d_difference = (d_alphas[i] - mean) / total
            d_energies[best[i]] += d_difference
            d_energies[best[k_top]] -= d_difference


@entry
def forward(
    begin: int, end: int, rule: Rule, recurrent: Any, w: Any, starts: Any, previous_cell: Any,
    trail: Trail, time: Any, occupied: Any, hidden: Any, context: Any, best: Any, alphas: Any,
    version: int = VERSION,
) -> None:  # fmt: skip
    """Rows ``begin`` to ``end`` of a sequence.

    Args:
        begin: first row.
        end: row after the last.
        rule: the memory's.
        recurrent: Rᵀ [n, 4 n], in panels.
        w: [n], what scores a state.
        starts: [T, B] bool.
        previous_cell: [B, n] that came in.
        trail: written; in it stand already the first s, the inputs and the states that came in.
        time: [B] int64, of what came in; becomes that of what goes out.
        occupied: [B, L + T] bool which states that came in are remembered; becomes which places
            of the history are.
        hidden: [T, B, n] h', written.
        context: [T, B, n] m, written.
        best: [B, k_top + 1] int32 scratch.
        alphas: [B, k_top + 1] scratch.
        version: see :data:`~relagent.memories.kernels.native.VERSION`.
    """
    wide_vectors()
    T, B, n = hidden.shape
    incoming = occupied.shape[1] - T
    trail, best, alphas = borrowed((trail, best, alphas))
    hidden, context, occupied = borrowed((hidden, context, occupied))
    for b in range(begin, end):
        energies = trail.energies[b]
        fill(best[b], -1)
        for m in range(incoming):
            if occupied[b, m]:
                energies[m] = dot(w, trail.history[b, m])
                _insert(best[b], energies, m)

    for low in range(begin, end, TOGETHER):
        high = min(low + TOGETHER, end)
        for t in range(T):
            for b in range(low, high):
                if starts[t, b]:
                    fill(trail.s[t, b], 0)
                    fill(best[b], -1)
                    fill(occupied[b], False)
                    time[b] = -1
                elif t > 0:
                    copy(trail.s[t, b], hidden[t - 1, b])
                time[b] += 1
                trail.time[t, b] = time[b]
            row = t * B + low
            add_product(trail.gates, row * 4 * n, 4 * n, trail.s, row * n, n, recurrent, high - low)
            for b in range(low, high):
                newest = incoming + t
                h, m, energies = trail.history[b, newest], context[t, b], trail.energies[b]
                previous = previous_cell[b] if t == 0 else trail.cells[t - 1, b]
                lstm(trail.gates[t, b], starts[t, b], previous, trail.cells[t, b], h)
                copy(trail.best[t, b], best[b])
                _weigh(rule, best[b], energies, alphas[b])
                fill(m, 0)
                for i in range(rule.k_top):
                    if best[b, i] >= 0:
                        add_scaled(m, alphas[b, i], trail.history[b, best[b, i]])
                for j in range(n):
                    hidden[t, b, j] = h[j] + m[j]
                if (time[b] + 1) % rule.k_att == 0:
                    occupied[b, newest] = True
                    energies[newest] = dot(w, h)
                    _insert(best[b], energies, newest)


@entry
def backward(
    begin: int, end: int, rule: Rule, recurrent: Any, w: Any, starts: Any, previous_cell: Any,
    trail: Trail, d_hidden: Any, d_context: Any, d_history: Any, d_energies: Any, d_h: Any,
    d_c: Any, d_w: Any, alphas: Any, d_alphas: Any, scratch: Any, version: int = VERSION,
) -> None:  # fmt: skip
    """The gradient of :func:`forward`, whose arguments come first.

    Args:
        begin: first row.
        end: row after the last.
        rule: the memory's.
        recurrent: R [4 n, n], in panels.
        w: [n].
        starts: [T, B].
        previous_cell: [B, n].
        trail: its gates become their gradient before the nonlinearities.
        d_hidden: [T, B, n].
        d_context: [T, B, n] becomes the gradient of m by all ways.
        d_history: [B, L + T, n], added to: of what came in, and at last of the states themselves.
        d_energies: [B, L + T] zeros.
        d_h: [B, n] zeros, becomes the gradient of the h that came in.
        d_c: [B, n], of the last cell; becomes that of the one that came in.
        d_w: [B, n] zeros, row by row.
        alphas: [B, k_top + 1] scratch.
        d_alphas: [B, k_top + 1] scratch.
        scratch: [B, n].
        version: see :data:`~relagent.memories.kernels.native.VERSION`.
    """
    wide_vectors()
    T, B, n = d_hidden.shape
    incoming = d_energies.shape[1] - T
    one = w.dtype.type(1)
    trail, d_hidden, d_context, d_history = borrowed((trail, d_hidden, d_context, d_history))
    d_energies, d_h, d_c, d_w = borrowed((d_energies, d_h, d_c, d_w))
    alphas, d_alphas, scratch = borrowed((alphas, d_alphas, scratch))
    for low in range(begin, end, TOGETHER):
        high = min(low + TOGETHER, end)
        for t in range(T - 1, -1, -1):
            for b in range(low, high):
                history, best, d_m = trail.history[b], trail.best[t, b], d_context[t, b]
                add_scaled(d_h[b], one, d_hidden[t, b])
                add_scaled(d_m, one, d_h[b])
                total = _weigh(rule, best, trail.energies[b], alphas[b])
                fill(d_alphas[b], 0)
                for i in range(rule.k_top):
                    if best[i] >= 0:
                        d_alphas[b, i] = dot(d_m, history[best[i]])
                        add_scaled(d_history[b, best[i]], alphas[b, i], d_m)
                _weigh_backward(rule, best, alphas[b], total, d_alphas[b], d_energies[b])
                # Every step that looked at ĥ_t lies behind us: its gradient is complete.
                newest = incoming + t
                _score_backward(d_energies[b, newest], w, history[newest], d_h[b], d_w[b])
                add_scaled(d_h[b], one, d_history[b, newest])
                previous = previous_cell[b] if t == 0 else trail.cells[t - 1, b]
                lstm_backward(
                    trail.gates[t, b], starts[t, b], previous, trail.cells[t, b],
                    d_h[b], d_c[b], scratch[b],
                )  # fmt: skip
                fill(d_h[b], 0)
            at = (t * B + low) * 4 * n
            add_product(d_h, low * n, n, trail.gates, at, 4 * n, recurrent, high - low)
            for b in range(low, high):
                if trail.time[t, b] % rule.k_trunc == 0:
                    fill(d_h[b], 0)
                    fill(d_c[b], 0)
    for b in range(begin, end):
        for m in range(incoming):
            _score_backward(d_energies[b, m], w, trail.history[b, m], d_history[b, m], d_w[b])


@jit
def _score_backward(d_energy: Any, w: Any, state: Any, d_state: Any, d_w: Any) -> None:
    """Add to the gradients of wᵀ m, if it has one: most states never joined."""
    if d_energy != 0:
        add_scaled(d_state, d_energy, w)
        add_scaled(d_w, d_energy, state)


class _Sequence(torch.autograd.Function):
    """The recurrence over a sequence, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: Rule,
        starts: Tensor,
        time: Tensor,
        occupied: Tensor,
        inputs: Tensor,
        h: Tensor,
        c: Tensor,
        states: Tensor,
        R: Tensor,
        w: Tensor,
    ) -> tuple[Tensor, ...]:
        T, B, _ = inputs.shape
        incoming, n = states.shape[1:]
        lives = occupied & ~starts[0][:, None]
        new = inputs.new_empty
        trail = Trail(
            s=new(T, B, n),
            gates=inputs.clone(memory_format=torch.contiguous_format),
            cells=new(T, B, n),
            history=new(B, incoming + T, n),
            energies=new(B, incoming + T),
            best=new(T, B, rule.k_top + 1, dtype=torch.int32),
            time=new(T, B, dtype=torch.int32),
        )
        trail.s[0] = torch.where(starts[0][:, None], 0, h)
        trail.history[:, :incoming] = torch.where(lives.unsqueeze(2), states, 0)
        time, lives = time.clone(), functional.pad(lives, (0, T))
        hidden, context, c = new(T, B, n), new(T, B, n), c.contiguous()
        _over_rows(
            forward, B, rule, panels(R.t()), w, starts, c, trail,
            time, lives, hidden, context,
            new(B, rule.k_top + 1, dtype=torch.int32), new(B, rule.k_top + 1),
        )  # fmt: skip
        ctx.rule = rule
        ctx.save_for_backward(R, w, starts, c, *trail)
        ctx.mark_non_differentiable(time, lives)
        return hidden, context, trail.cells[-1].clone(), trail.history, time, lives

    @staticmethod
    def backward(
        ctx: Any, d_hidden: Tensor, d_context: Tensor, d_c: Tensor, d_history: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        one_by_one(d_hidden, d_context, d_c, d_history)
        saved = ctx.saved_tensors
        with torch.no_grad():
            gradients = _Sequence.gradients(ctx, saved, d_hidden, d_context, d_c, d_history)
        history = Trail(*saved[4:]).history
        return once((history, d_hidden, d_context, d_c, d_history), gradients)

    @staticmethod
    def gradients(
        ctx: Any, saved: Any, d_hidden: Tensor, d_context: Tensor, d_c: Tensor, d_history: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of what :meth:`forward` took, in its order."""
        rule: Rule = ctx.rule
        R, w, starts, c, *kept = saved
        trail = Trail(*kept)
        trail = trail._replace(gates=trail.gates.clone())  # is written to
        T, B, n = d_hidden.shape
        d_history, d_c, d_context = (
            gradient.clone(memory_format=torch.contiguous_format)
            for gradient in (d_history, d_c, d_context)
        )
        d_h, d_w = torch.zeros_like(d_c), torch.zeros_like(d_c)
        new = R.new_empty
        _over_rows(
            backward, B, rule, panels(R), w, starts, c, trail,
            d_hidden.contiguous(), d_context, d_history, torch.zeros_like(trail.energies),
            d_h, d_c, d_w, new(B, rule.k_top + 1), new(B, rule.k_top + 1), new(B, n),
        )  # fmt: skip
        d_gates = trail.gates.view(T * B, 4 * n)
        d_states = d_history[:, : d_history.shape[1] - T]
        d_R = (trail.s.view(T * B, n).T @ d_gates).T
        return None, None, None, None, trail.gates, d_h, d_c, d_states, d_R, d_w.sum(dim=0)


def _over_rows(kernel: Any, B: int, rule: Rule, *arguments: Any) -> None:
    """Run a loop on arrays instead of tensors."""

    def array(argument: Any) -> Any:
        if isinstance(argument, Trail):
            return Trail(*map(array, argument))
        return as_array(argument.contiguous())

    recurrent, _, starts = arguments[:3]
    over_rows(kernel, B, float(starts.numel() * recurrent.numel()), rule, *map(array, arguments))


def unroll_sab(memory: SAB, x: Tensor, state: SABState, starts: Tensor) -> tuple[Tensor, SABState]:
    """:meth:`SAB.unroll`; a width is filled up to whole panels with units that stay 0."""
    cell, attention = memory.cell, memory.attention
    if not (
        untouched(cell, LSTMCell)
        and untouched(attention, SparseAttention)
        and fits(x, state, tuple(memory.parameters()))
    ):
        return memory.unroll_definition(x, state, starts)
    n, none = memory.hidden_size, x.new_empty(0)
    energy = attention.energy_weight[n:]
    weights = Parameters(
        cell.input_weight, cell.recurrent_weight, cell.bias, none, none, energy, none
    )
    h, c, states = state.h, state.c, state.states
    if extra := -n % PANEL:
        weights = widened(weights, n, extra)
        h, c, states = (functional.pad(part, (0, extra)) for part in (h, c, states))
    hidden, context, c, history, time, occupied = _Sequence.apply(  # type: ignore[no-untyped-call]  # torch's
        Rule(memory.k_att, attention.k_top, memory.k_trunc),
        starts.contiguous(),
        state.time,
        state.occupied,
        functional.linear(x, weights.input, weights.bias),
        h,
        c,
        states,
        weights.recurrent,
        weights.energy,
    )
    hidden, context, c, history = (part[..., :n] for part in (hidden, context, c, history))
    y = hidden + context @ memory.context_weight.T
    slots = occupied.any(dim=0).nonzero().squeeze(1)  # others are of no use to any row
    occupied = occupied[:, slots]
    states = torch.where(occupied.unsqueeze(2), history[:, slots], 0)
    return y, SABState(hidden[-1].clone(), c, time, states, occupied)
