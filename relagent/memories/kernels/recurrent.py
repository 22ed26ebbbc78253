"""The recurrence over a sequence and its gradient, for all cells and all ways of remembering.

One pair of loops serves LSTM, RNN, RelLSTM, RelRNN, MemLSTM and MemRNN. Arrays are time-major and
named as in the definitions; n is a multiple of 16, gates have G·n columns (G = 4 for the LSTM: i,
f, g, o; 1 for the RNN), and W_a's query stands right of them, since both read s_{t-1}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from relagent.memories.kernels.attention import (
    BLOCK,
    add_scaled,
    attend,
    attend_backward,
)
from relagent.memories.kernels.native import VERSION, entry, jit
from relagent.memories.kernels.product import add_product
from relagent.memories.kernels.transcendental import sigmoid, tanh

PLAIN, RELEVANCY, FULL = 0, 1, 2
"""What is remembered."""
LSTM, TANH, RELU, MODRELU = 0, 1, 2, 3
"""The cell: an LSTM, or an RNN by its nonlinearity."""


class Plan(NamedTuple):
    """What is to be computed."""

    remember: int
    """PLAIN, RELEVANCY or FULL."""
    cell: int
    """LSTM, TANH, RELU or MODRELU."""
    halve: bool
    """s = (h + context) / 2 instead of h + context."""
    rho: int
    """Slots of the relevant set."""


class Weights(NamedTuple):
    """The parameters, laid out for the forward pass (transposed) or as they are (backward)."""

    input: Any
    """[F, G·n] Wᵀ; not needed backward."""
    recurrent: Any
    """[n, G·n + n] of R and W_a, transposed; backward [G·n + n, n]."""
    key: Any
    """[n, n] U_aᵀ; backward U_a."""
    bias: Any
    """[G·n + n], 0 for the query."""
    energy: Any
    """[n] v_a."""
    threshold: Any
    """[n] bias of modReLU."""


class Trail(NamedTuple):
    """What a sequence leaves behind for its gradient."""

    s: Any
    """[T, B, n] the macro-state that each step read: s_{t-1}, or 0 at an episode's start."""
    gates: Any
    """[T, B, G·n + n] LSTM gates after their nonlinearities (RNN: before), and the query."""
    cells: Any
    """[T, B, n] LSTM cells, or [T, B, 0]."""
    history: Any
    """[B, L + T, n] the L states that came in, then h_1 .. h_T."""
    keys: Any
    """[B, L + T, n] U_a h of them."""
    places: Any
    """[T, B, κ] int32: what was remembered at each step, -1 for an empty slot (RELEVANCY)."""
    first: Any
    """[T, B] int32: the oldest state remembered at each step (FULL)."""
    log_total: Any
    """[T, B] ln Σ exp(e)."""


class Carried(NamedTuple):
    """What a sequence is handed."""

    s: Any
    """[B, n] macro-state."""
    c: Any
    """[B, n] LSTM cell, or [B, 0]."""
    states: Any
    """[B, L, n] remembered states."""
    scores: Any
    """[B, L] relevance."""
    ages: Any
    """[B, L] int64, -1 for an empty slot (FULL: any other number for an occupied one)."""


class HandedOn(NamedTuple):
    """What a sequence hands on beside its last output and cell.

    FULL hands on the scores of all of its history, [B, L + T], and nothing else: the states stand
    in the history.
    """

    states: Any
    """[B, L, n]."""
    scores: Any
    """[B, L]."""
    ages: Any
    """[B, L] int64."""


class Gradients(NamedTuple):
    """What the backward pass adds to, or writes."""

    gates: Any
    """[T, B, G·n + n] of the gates before their nonlinearities, and of the query: written."""
    history: Any
    """[B, L + T, n]: holds the gradient of the final state, is added to."""
    keys: Any
    """[B, L + T, n]: zeros, is added to."""
    s: Any
    """[B, n] of the incoming macro-state: zeros, is written."""
    c: Any
    """[B, n] holds the gradient of the final cell; becomes that of the incoming one."""
    energy: Any
    """[B, n] of v_a, row by row: zeros, is added to."""
    threshold: Any
    """[B, n] of modReLU's bias, row by row: zeros, is added to."""


@jit
def _lstm(gates: Any, start: bool, previous: Any, c: Any, h: Any) -> None:
    """Gates before -> after their nonlinearities; writes c and h."""
    n = h.shape[0]
    input_forget, candidate, output = gates[: 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    for j in range(2 * n):
        input_forget[j] = sigmoid(input_forget[j])
    for j in range(n):
        candidate[j] = tanh(candidate[j])
    for j in range(n):
        output[j] = sigmoid(output[j])
    i, f = input_forget[:n], input_forget[n:]
    if start:
        for j in range(n):
            c[j] = i[j] * candidate[j]
    else:
        for j in range(n):
            c[j] = f[j] * previous[j] + i[j] * candidate[j]
    for j in range(n):
        h[j] = output[j] * tanh(c[j])


@jit
def _lstm_backward(
    gates: Any, start: bool, previous: Any, c: Any, d_h: Any, d_c: Any, d_gates: Any, scratch: Any
) -> None:
    """Write d_gates; d_c of c_t becomes that of c_{t-1}."""
    n = d_h.shape[0]
    one = gates.dtype.type(1)
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    d_i, d_f, d_g, d_o = (
        d_gates[:n], d_gates[n : 2 * n], d_gates[2 * n : 3 * n], d_gates[3 * n : 4 * n]
    )  # fmt: skip
    for j in range(n):
        scratch[j] = tanh(c[j])
    for j in range(n):
        d_o[j] = d_h[j] * scratch[j] * (o[j] * (one - o[j]))
    for j in range(n):
        d_c[j] += d_h[j] * o[j] * (one - scratch[j] * scratch[j])
    for j in range(n):
        d_i[j] = d_c[j] * g[j] * (i[j] * (one - i[j]))
    for j in range(n):
        d_g[j] = d_c[j] * i[j] * (one - g[j] * g[j])
    if start:
        d_f[:] = 0
        d_c[:] = 0
    else:
        for j in range(n):
            d_f[j] = d_c[j] * previous[j] * (f[j] * (one - f[j]))
        for j in range(n):
            d_c[j] *= f[j]


@jit
def _rnn(cell: int, z: Any, threshold: Any, h: Any) -> None:
    """Write h = φ(z)."""
    n = h.shape[0]
    zero = z.dtype.type(0)
    if cell == TANH:
        for j in range(n):
            h[j] = tanh(z[j])
    elif cell == RELU:
        for j in range(n):
            h[j] = zero if z[j] < zero else z[j]
    else:
        for j in range(n):
            size = abs(z[j]) + threshold[j]
            size = zero if size < zero else size
            h[j] = size if z[j] > zero else (-size if z[j] < zero else zero * z[j])


@jit
def _rnn_backward(
    cell: int, z: Any, threshold: Any, h: Any, d_h: Any, d_z: Any, d_threshold: Any
) -> None:
    """Write d_z; add to d_threshold."""
    n = h.shape[0]
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if cell == TANH:
        for j in range(n):
            d_z[j] = d_h[j] * (one - h[j] * h[j])
    elif cell == RELU:
        for j in range(n):
            d_z[j] = d_h[j] if z[j] > zero else zero
    else:
        for j in range(n):
            active = abs(z[j]) + threshold[j] > zero and z[j] != zero
            d_z[j] = d_h[j] if active else zero
            d_threshold[j] += d_z[j] if z[j] > zero else -d_z[j]


@jit
def _screen(rho: int, newest: int, old: Any, places: Any, scores: Any) -> None:
    """Relevancy screening of one row: the newest state enters, the oldest of S leaves."""
    places[:] = old
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
    incoming = before.ages.shape[1]
    first = incoming
    for m in range(incoming):
        if before.ages[b, m] >= 0 and not start:
            places[m] = m
            history[m] = before.states[b, m]
            scores[m] = before.scores[b, m]
            first = min(first, m)
        else:
            places[m] = -1
            history[m] = 0
            scores[m] = 0
    if plan.remember == FULL:
        scores[incoming:] = 0
    return first


@jit
def _hand_on(before: Carried, after: HandedOn, b: int, steps: int, history: Any, look: Any) -> None:
    """Write what row b remembers at the end (RELEVANCY), by the places of the last step."""
    slots = look.shape[0]
    for m in range(slots):
        place = look[m]
        if place < 0:
            after.ages[b, m] = -1
            after.states[b, m] = 0
        else:
            made = place - slots
            after.ages[b, m] = before.ages[b, place] + steps if made < 0 else steps - 1 - made
            after.states[b, m] = history[place]


@entry
def forward(
    begin: int, end: int, plan: Plan, weights: Weights, x: Any, starts: Any,
    before: Carried, after: HandedOn, trail: Trail, y: Any, version: int = VERSION,
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
        version: see :data:`~relagent.memories.kernels.native.VERSION`.
    """
    T, B, F = x.shape
    n = y.shape[2]
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    tanhs = np.empty((BLOCK, n), y.dtype)
    alphas = np.empty(slots, y.dtype)
    half = y.dtype.type(0.5)
    # Per row: the places that the incoming state occupies, then those of the sequence itself.
    places = np.empty((end - begin, slots), np.int32)
    places[:] = np.arange(slots)
    first = np.zeros(end - begin, np.int32)

    if plan.remember != PLAIN:
        for b in range(begin, end):
            first[b - begin] = _take_over(
                plan, starts[0, b], before, b, trail.history[b], places[b - begin], after.scores[b]
            )
            trail.keys[b, :incoming] = 0
            at = b * slots * n
            add_product(trail.keys, at, n, trail.history, at, n, weights.key, incoming)

    # Full attention sweeps all of a row's history at each step: few rows at a time stay in cache.
    together = 4 if plan.remember == FULL else end - begin
    for low in range(begin, end, together):
        high = min(low + together, end)
        for t in range(T):
            for b in range(low, high):
                if starts[t, b]:
                    trail.s[t, b] = 0
                elif t == 0:
                    trail.s[t, b] = before.s[b]
                else:
                    trail.s[t, b] = y[t - 1, b]
                trail.gates[t, b] = weights.bias
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
                    _lstm(gates, starts[t, b], previous, trail.cells[t, b], h)
                else:
                    _rnn(plan.cell, gates[:n], weights.threshold, h)
                y[t, b] = h
            if plan.remember == PLAIN:
                continue
            trail.keys[low:high, newest] = 0
            at = (low * slots + newest) * n
            add_product(
                trail.keys, at, slots * n, trail.history, at, slots * n, weights.key, high - low
            )
            for b in range(low, high):
                if plan.remember == RELEVANCY:
                    old = places[b - begin, :incoming] if t == 0 else trail.places[t - 1, b]
                    if starts[t, b] and t > 0:
                        after.scores[b] = 0
                        old = places[b - begin, :incoming]
                        old[:] = -1
                    look, earning = trail.places[t, b], after.scores[b]
                    _screen(plan.rho, newest, old, look, earning)
                else:
                    oldest = newest if starts[t, b] else first[b - begin]
                    first[b - begin] = trail.first[t, b] = oldest
                    look = places[b - begin, oldest : newest + 1]
                    earning = after.scores[b, oldest : newest + 1]
                alpha = alphas[: look.shape[0]]
                trail.log_total[t, b] = attend(
                    look, trail.gates[t, b, columns - n :], weights.energy,
                    trail.history[b], trail.keys[b], tanhs, alpha, y[t, b],
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
    y: Any, d_y: Any, gradients: Gradients, version: int = VERSION,
) -> None:  # fmt: skip
    """The gradient of :func:`forward`; the parameters' are left to products with its results.

    The arguments up to ``y`` are those of :func:`forward`, but the weights are not transposed;
    ``d_y`` is the gradient of y, and ``gradients`` are written.
    """
    T, B, n = y.shape
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    tanhs = np.empty((BLOCK, n), y.dtype)
    alphas = np.empty(BLOCK, y.dtype)
    places = np.empty((end - begin, slots), np.int32)
    places[:] = np.arange(slots)
    if plan.remember == FULL:
        for b in range(begin, end):
            for m in range(incoming):
                if before.ages[b, m] < 0:
                    places[b - begin, m] = -1
    scratch, context = np.empty(n, y.dtype), np.empty(n, y.dtype)
    d_h = np.empty((B, n), y.dtype)
    one = y.dtype.type(1)
    two = y.dtype.type(2) if plan.halve else one
    half = one / two

    together = 4 if plan.remember == FULL else end - begin
    for low in range(begin, end, together):
        high = min(low + together, end)
        for t in range(T - 1, -1, -1):
            newest = incoming + t
            for b in range(low, high):
                # The macro-state's gradient: from its output and from the step after.
                d_s = gradients.s[b]
                add_scaled(d_s, one, d_y[t, b])
                if plan.remember == PLAIN:
                    d_h[b] = d_s
                    continue
                for j in range(n):
                    d_s[j] *= half
                h, output = trail.history[b, newest], y[t, b]
                for j in range(n):
                    context[j] = two * output[j] - h[j]
                if plan.remember == RELEVANCY:
                    look = trail.places[t, b]
                else:
                    look = places[b - begin, trail.first[t, b] : newest + 1]
                d_query = gradients.gates[t, b, columns - n :]
                d_query[:] = 0
                attend_backward(
                    look, trail.gates[t, b, columns - n :], weights.energy,
                    trail.history[b], trail.keys[b], trail.log_total[t, b], context, d_s,
                    tanhs, alphas, gradients.history[b], gradients.keys[b],
                    d_query, gradients.energy[b],
                )  # fmt: skip
                # Every step that looked at h_t lies behind us: its gradient is complete.
                d_state = gradients.history[b, newest]
                for j in range(n):
                    d_h[b, j] = d_s[j] + d_state[j]
            if plan.remember != PLAIN:
                at = (low * slots + newest) * n
                add_product(d_h, low * n, n, gradients.keys, at, slots * n, weights.key, high - low)
            for b in range(low, high):
                gates, d_gates = trail.gates[t, b], gradients.gates[t, b]
                if plan.cell == LSTM:
                    previous = before.c[b] if t == 0 else trail.cells[t - 1, b]
                    _lstm_backward(
                        gates, starts[t, b], previous, trail.cells[t, b],
                        d_h[b], gradients.c[b], d_gates, scratch,
                    )  # fmt: skip
                else:
                    _rnn_backward(
                        plan.cell, gates[:n], weights.threshold, trail.history[b, newest],
                        d_h[b], d_gates[:n], gradients.threshold[b],
                    )  # fmt: skip
                gradients.s[b] = 0
            at = (t * B + low) * columns
            add_product(
                gradients.s, low * n, n, gradients.gates, at, columns, weights.recurrent, high - low
            )
            for b in range(low, high):
                if starts[t, b]:
                    gradients.s[b] = 0
