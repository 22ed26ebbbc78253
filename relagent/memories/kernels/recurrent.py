"""The recurrence over a sequence and its gradient, for all cells and all ways of remembering.

One pair of loops serves LSTM, GRU, GORU, RNN, RelLSTM, RelRNN, MemLSTM and MemRNN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from relagent.memories.kernels.attention import (
    Keys,
    Query,
    add_scaled,
    attend,
    attend_backward,
    copy,
    fill,
    raise_to_power,
)
from relagent.memories.kernels.cells import (
    gru,
    gru_backward,
    lstm,
    lstm_backward,
    rnn,
    rnn_backward,
)
from relagent.memories.kernels.native import (
    VERSION,
    borrowed,
    entry,
    jit,
    wide_vectors,
)
from relagent.memories.kernels.product import add_product
from relagent.memories.kernels.records import (
    FULL,
    GORU,
    GRU,
    LSTM,
    PLAIN,
    RELEVANCY,
    Carried,
    Gradients,
    HandedOn,
    Plan,
    Scratch,
    Trail,
    Weights,
)

TOGETHER = (16, 16, 4)
"""Rows that go through a sequence together, by what is remembered: enough to use the weights well,
and so few that what they look back at stays in cache (full attention sweeps all of it)."""


@jit
def _screen(rho: int, newest: int, old: Any, places: Any, scores: Any) -> None:
    """Relevancy screening of one row: the newest state enters, the oldest of S leaves."""
    copy(places, old)
    leaver, slots = old[rho], old.shape[0]
    if rho > 0 and leaver >= 0:
        slot, lowest = -1, scores[0]
        for m in range(rho):
            if old[m] < 0:
                slot = m
                break
            if slot < 0 or scores[m] < lowest:
                slot, lowest = m, scores[m]
        if old[slot] < 0 or scores[rho] > lowest:
            places[slot], scores[slot] = leaver, scores[rho]
    for m in range(rho, slots - 1):
        places[m], scores[m] = old[m + 1], scores[m + 1]
    places[slots - 1], scores[slots - 1] = newest, 0


@jit
def _take_over(
    plan: Plan, start: bool, before: Carried, b: int, history: Any, places: Any, scores: Any
) -> Any:
    """Copy what row b remembers; return the place of the oldest.

    Empty slots become 0 in the history: what an earlier episode left there may be NaN, and later
    products run over all of it.
    """
    wide_vectors()
    incoming = before.ages.shape[1]
    first = incoming
    for m in range(incoming):
        if before.ages[b, m] >= 0 and not start:
            places[m] = m
            copy(history[m], before.states[b, m])
            scores[m] = before.scores[b, m]
            first = min(first, m)
        else:
            places[m] = -1
            fill(history[m], 0)
            scores[m] = 0
    for place in range(incoming, places.shape[0]):
        places[place] = place
    if plan.remember == FULL:
        fill(scores[incoming:], 0)
    return first


@jit
def _raise_keys(scratch: Scratch, b: int, keys: Any, begin: int, end: int) -> None:
    """Write the powers of some of row b's keys, if there is room for them."""
    for place in range(begin, min(end, scratch.powers.shape[1])):
        scratch.in_range[b, place] = raise_to_power(keys[place], scratch.powers[b, place])


@jit
def _hand_on(before: Carried, after: HandedOn, b: int, steps: int, history: Any, look: Any) -> None:
    """Write what row b remembers at the end (RELEVANCY), by the places of the last step."""
    wide_vectors()
    slots = look.shape[0]
    for m in range(slots):
        place = look[m]
        if place < 0:
            after.ages[b, m] = -1
            fill(after.states[b, m], 0)
        else:
            made = place - slots
            after.ages[b, m] = before.ages[b, place] + steps if made < 0 else steps - 1 - made
            copy(after.states[b, m], history[place])


@entry
def forward(
    begin: int, end: int, plan: Plan, weights: Weights, x: Any, starts: Any,
    before: Carried, after: HandedOn, trail: Trail, y: Any, keyed: bool, scratch: Scratch,
    version: int = VERSION,
) -> None:  # fmt: skip
    """Rows ``begin`` to ``end`` of :meth:`Memory.unroll`.

    Args:
        begin: first row.
        end: row after the last.
        plan: what to compute.
        weights: transposed.
        x: [T, B, F].
        starts: [T, B] bool.
        before: the incoming state.
        after: the outgoing state, written.
        trail: written.
        y: [T, B, n], written.
        keyed: whether ``trail`` holds the keys of the incoming states.
        scratch: written.
        version: see :data:`~relagent.memories.kernels.native.VERSION`.
    """
    wide_vectors()
    T, B, F = x.shape
    n = y.shape[2]
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    half = y.dtype.type(0.5)
    weights, x, starts, before = borrowed((weights, x, starts, before))
    after, trail, y, scratch = borrowed((after, trail, y, scratch))
    shortfalls, alphas, places = scratch.shortfalls[begin], scratch.alphas[begin], scratch.places
    first = np.zeros(end - begin, np.int32)
    raised = scratch.query[begin]

    if plan.remember != PLAIN:
        for b in range(begin, end):
            first[b - begin] = _take_over(
                plan, starts[0, b], before, b, trail.history[b], places[b], after.scores[b]
            )
            if not keyed:
                for m in range(incoming):
                    fill(trail.keys[b, m], 0)
                at = b * slots * n
                add_product(trail.keys, at, n, trail.history, at, n, weights.key, incoming)
            _raise_keys(scratch, b, trail.keys[b], 0, incoming)

    together = TOGETHER[plan.remember]
    for low in range(begin, end, together):
        high = min(low + together, end)
        for t in range(T):
            for b in range(low, high):
                if starts[t, b]:
                    fill(trail.s[t, b], 0)
                elif t == 0:
                    copy(trail.s[t, b], before.s[b])
                else:
                    copy(trail.s[t, b], y[t - 1, b])
                copy(trail.gates[t, b], weights.bias)
            row = t * B + low
            at = row * columns
            add_product(trail.gates, at, columns, x, row * F, F, weights.input, high - low)
            add_product(
                trail.gates, at, columns, trail.s, row * n, n, weights.recurrent, high - low
            )
            newest = incoming + t
            for b in range(low, high):
                h, gates = trail.history[b, newest], trail.gates[t, b]
                if plan.cell == LSTM:
                    previous = before.c[b] if t == 0 else trail.cells[t - 1, b]
                    lstm(gates, starts[t, b], previous, trail.cells[t, b], h)
                elif plan.cell == GRU or plan.cell == GORU:
                    gru(plan.cell, gates, weights.threshold, trail.s[t, b], h)
                else:
                    rnn(plan.cell, gates[:n], weights.threshold)
                    copy(h, gates[:n])
                copy(y[t, b], h)
                if plan.remember != PLAIN:
                    fill(trail.keys[b, newest], 0)
            if plan.remember == PLAIN:
                continue
            at = (low * slots + newest) * n
            add_product(
                trail.keys, at, slots * n, trail.history, at, slots * n, weights.key, high - low
            )
            for b in range(low, high):
                if plan.remember == RELEVANCY:
                    old = places[b, :incoming] if t == 0 else trail.places[t - 1, b]
                    if starts[t, b] and t > 0:
                        fill(after.scores[b], 0)
                        old = places[b, :incoming]
                        fill(old, -1)
                    look, earning = trail.places[t, b], after.scores[b]
                    _screen(plan.rho, newest, old, look, earning)
                else:
                    oldest = newest if starts[t, b] else first[b - begin]
                    first[b - begin] = trail.first[t, b] = oldest
                    look = places[b, oldest : newest + 1]
                    earning = after.scores[b, oldest : newest + 1]
                alpha = alphas[: look.shape[0]]
                _raise_keys(scratch, b, trail.keys[b], newest, newest + 1)
                query = trail.gates[t, b, columns - n :]
                trail.log_total[t, b] = attend(
                    look, Query(query, raised, raise_to_power(query, raised)), weights.energy,
                    trail.history[b], Keys(trail.keys[b], scratch.powers[b], scratch.in_range[b]),
                    shortfalls, alpha, y[t, b],
                )  # fmt: skip
                for m in range(plan.rho, look.shape[0]):
                    earning[m] += alpha[m]
                if plan.halve:
                    for j in range(n):
                        y[t, b, j] *= half
    if plan.remember == RELEVANCY:
        for b in range(begin, end):
            _hand_on(before, after, b, T, trail.history[b], trail.places[T - 1, b])


@entry
def backward(
    begin: int, end: int, plan: Plan, weights: Weights, starts: Any, before: Carried, trail: Trail,
    y: Any, d_y: Any, gradients: Gradients, scratch: Scratch, version: int = VERSION,
) -> None:  # fmt: skip
    """The gradient of :func:`forward`; the parameters' are left to products with its results.

    The arguments up to ``y`` are those of :func:`forward`, but the weights are not transposed;
    ``d_y`` is the gradient of y, and ``gradients`` are written.
    """
    wide_vectors()
    T, B, n = y.shape
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    weights, starts, before, trail = borrowed((weights, starts, before, trail))
    y, scratch, d_y, gradients = borrowed((y, scratch, d_y, gradients))
    shortfalls, alphas, places = scratch.shortfalls[begin], scratch.alphas[begin], scratch.places
    d_h, context, cell = scratch.d_h, scratch.context[begin], scratch.cell[begin]
    raised, d_query = scratch.query[begin], scratch.d_query[begin]
    if plan.remember != PLAIN:
        for b in range(begin, end):
            _raise_keys(scratch, b, trail.keys[b], 0, slots)
    if plan.remember == FULL:
        for b in range(begin, end):
            for m in range(slots):
                places[b, m] = -1 if m < incoming and before.ages[b, m] < 0 else m
    one = y.dtype.type(1)
    two = y.dtype.type(2) if plan.halve else one
    half = one / two

    together = TOGETHER[plan.remember]
    for low in range(begin, end, together):
        high = min(low + together, end)
        for t in range(T - 1, -1, -1):
            newest = incoming + t
            for b in range(low, high):
                # The macro-state's gradient: from its output and from the step after.
                d_s = gradients.s[b]
                add_scaled(d_s, one, d_y[t, b])
                if plan.remember == PLAIN:
                    copy(d_h[b], d_s)
                    continue
                for j in range(n):
                    d_s[j] *= half
                h, output = trail.history[b, newest], y[t, b]
                for j in range(n):
                    context[j] = two * output[j] - h[j]
                if plan.remember == RELEVANCY:
                    look = trail.places[t, b]
                else:
                    look = places[b, trail.first[t, b] : newest + 1]
                query = trail.gates[t, b, columns - n :]
                fill(d_query, 0)
                attend_backward(
                    look, Query(query, raised, raise_to_power(query, raised)), weights.energy,
                    trail.history[b], Keys(trail.keys[b], scratch.powers[b], scratch.in_range[b]),
                    trail.log_total[t, b], context, d_s,
                    shortfalls, alphas, gradients.history[b], gradients.keys[b],
                    d_query, gradients.energy[b],
                )  # fmt: skip
                copy(query, d_query)
                # Every step that looked at h_t lies behind us: its gradient is complete.
                d_state = gradients.history[b, newest]
                for j in range(n):
                    d_h[b, j] = d_s[j] + d_state[j]
            if plan.remember != PLAIN:
                at = (low * slots + newest) * n
                add_product(d_h, low * n, n, gradients.keys, at, slots * n, weights.key, high - low)
            for b in range(low, high):
                gates = trail.gates[t, b]
                fill(gradients.s[b], 0)
                if plan.cell == LSTM:
                    previous = before.c[b] if t == 0 else trail.cells[t - 1, b]
                    lstm_backward(
                        gates, starts[t, b], previous, trail.cells[t, b],
                        d_h[b], gradients.c[b], cell,
                    )  # fmt: skip
                elif plan.cell == GRU or plan.cell == GORU:
                    gru_backward(
                        plan.cell, gates, trail.s[t, b], d_h[b], gradients.s[b],
                        gradients.threshold[b], cell,
                    )  # fmt: skip
                else:
                    rnn_backward(plan.cell, gates[:n], d_h[b], gradients.threshold[b])
                add_scaled(gradients.bias[b], one, gates)
            at = (t * B + low) * columns
            add_product(
                gradients.s, low * n, n, trail.gates, at, columns, weights.recurrent, high - low
            )
            for b in range(low, high):
                if starts[t, b]:
                    fill(gradients.s[b], 0)
