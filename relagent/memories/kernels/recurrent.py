"""The recurrence over a sequence and its gradient, for all cells and all ways of remembering.

One pair of loops serves LSTM, RNN, RelLSTM, RelRNN, MemLSTM and MemRNN. Arrays are time-major and
named as in the definitions; n is a multiple of 16, gates have G·n columns (G = 4 for the LSTM: i,
f, g, o; 1 for the RNN), and W_a's query stands right of them, since both read s_{t-1}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from relagent.memories.kernels.attention import add_scaled, attend, attend_backward
from relagent.memories.kernels.native import VERSION, borrowed, entry, jit
from relagent.memories.kernels.product import add_product
from relagent.memories.kernels.transcendental import sigmoid, tanh

PLAIN, RELEVANCY, FULL = 0, 1, 2
"""What is remembered."""
LSTM, TANH, RELU, MODRELU = 0, 1, 2, 3
"""The cell: an LSTM, or an RNN by its nonlinearity."""
TOGETHER = (16, 16, 4)
"""Rows that go through a sequence together, by what is remembered: enough to use the weights well,
and so few that what they look back at stays in cache (full attention sweeps all of it)."""


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
    """The parameters; matrices in panels, see :mod:`~relagent.memories.kernels.product`."""

    input: Any
    """Wᵀ [F, G·n]; not needed backward."""
    recurrent: Any
    """R and W_a, transposed, [n, G·n + n]; backward as they are, [G·n + n, n]."""
    key: Any
    """U_aᵀ [n, n]; backward U_a."""
    bias: Any
    """[G·n + n], 0 for the query; not needed backward."""
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


class Scratch(NamedTuple):
    """Room to work in, for each row that a thread may begin with."""

    tanhs: Any
    """[B, BLOCK, n]."""
    alphas: Any
    """[B, L + T]."""
    places: Any
    """[B, L + T] int32: those that the incoming state occupies (or -1), then the sequence's own."""
    d_h: Any
    """[B, n], and the rest alike; only backward needs them."""
    context: Any
    cell: Any
    d_query: Any


class Gradients(NamedTuple):
    """What the backward pass adds to, or writes.

    The gradient of the gates before their nonlinearities, and of the query, takes the place of
    :attr:`Trail.gates`: that array is the largest, and this way it goes through memory once.
    """

    bias: Any
    """[B, G·n + n] sum of it over time, row by row: zeros, is added to."""
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
def _borrowed_all(
    weights: Weights, before: Carried, trail: Trail, scratch: Scratch
) -> tuple[Weights, Carried, Trail, Scratch]:
    """See :func:`~relagent.memories.kernels.native.borrowed`."""
    return (
        Weights(
            borrowed(weights.input), borrowed(weights.recurrent), borrowed(weights.key),
            borrowed(weights.bias), borrowed(weights.energy), borrowed(weights.threshold),
        ),
        Carried(
            borrowed(before.s), borrowed(before.c), borrowed(before.states),
            borrowed(before.scores), borrowed(before.ages),
        ),
        Trail(
            borrowed(trail.s), borrowed(trail.gates), borrowed(trail.cells),
            borrowed(trail.history), borrowed(trail.keys), borrowed(trail.places),
            borrowed(trail.first), borrowed(trail.log_total),
        ),
        Scratch(
            borrowed(scratch.tanhs), borrowed(scratch.alphas), borrowed(scratch.places),
            borrowed(scratch.d_h), borrowed(scratch.context), borrowed(scratch.cell),
            borrowed(scratch.d_query),
        ),
    )  # fmt: skip


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
    gates: Any, start: bool, previous: Any, c: Any, d_h: Any, d_c: Any, scratch: Any
) -> None:
    """Gates -> their gradient before the nonlinearities; d_c of c_t -> that of c_{t-1}."""
    n = d_h.shape[0]
    one = gates.dtype.type(1)
    i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    for j in range(n):
        scratch[j] = tanh(c[j])
    for j in range(n):
        d_c[j] += d_h[j] * o[j] * (one - scratch[j] * scratch[j])
    for j in range(n):
        o[j] = d_h[j] * scratch[j] * (o[j] * (one - o[j]))
    for j in range(n):
        i_j, g_j = i[j], g[j]
        i[j] = d_c[j] * g_j * (i_j * (one - i_j))
        g[j] = d_c[j] * i_j * (one - g_j * g_j)
    if start:
        f[:] = 0
        d_c[:] = 0
    else:
        for j in range(n):
            f_j = f[j]
            f[j] = d_c[j] * previous[j] * (f_j * (one - f_j))
            d_c[j] *= f_j


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
def _rnn_backward(cell: int, z: Any, threshold: Any, h: Any, d_h: Any, d_threshold: Any) -> None:
    """z -> its gradient; add to d_threshold."""
    n = h.shape[0]
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if cell == TANH:
        for j in range(n):
            z[j] = d_h[j] * (one - h[j] * h[j])
    elif cell == RELU:
        for j in range(n):
            z[j] = d_h[j] if z[j] > zero else zero
    else:
        for j in range(n):
            active = abs(z[j]) + threshold[j] > zero and z[j] != zero
            d_z = d_h[j] if active else zero
            d_threshold[j] += d_z if z[j] > zero else -d_z
            z[j] = d_z


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
    places[incoming:] = np.arange(incoming, places.shape[0])
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
    before: Carried, after: HandedOn, trail: Trail, y: Any, scratch: Scratch,
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
        scratch: written.
        version: see :data:`~relagent.memories.kernels.native.VERSION`.
    """
    T, B, F = x.shape
    n = y.shape[2]
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    half = y.dtype.type(0.5)
    weights, before, trail, scratch = _borrowed_all(weights, before, trail, scratch)
    x, starts, y = borrowed(x), borrowed(starts), borrowed(y)
    after = HandedOn(borrowed(after.states), borrowed(after.scores), borrowed(after.ages))
    tanhs, alphas, places = scratch.tanhs[begin], scratch.alphas[begin], scratch.places
    first = np.zeros(end - begin, np.int32)

    if plan.remember != PLAIN:
        for b in range(begin, end):
            first[b - begin] = _take_over(
                plan, starts[0, b], before, b, trail.history[b], places[b], after.scores[b]
            )
            trail.keys[b, :incoming] = 0
            at = b * slots * n
            add_product(trail.keys, at, n, trail.history, at, n, weights.key, incoming)

    together = TOGETHER[plan.remember]
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
                    old = places[b, :incoming] if t == 0 else trail.places[t - 1, b]
                    if starts[t, b] and t > 0:
                        after.scores[b] = 0
                        old = places[b, :incoming]
                        old[:] = -1
                    look, earning = trail.places[t, b], after.scores[b]
                    _screen(plan.rho, newest, old, look, earning)
                else:
                    oldest = newest if starts[t, b] else first[b - begin]
                    first[b - begin] = trail.first[t, b] = oldest
                    look = places[b, oldest : newest + 1]
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
    y: Any, d_y: Any, gradients: Gradients, scratch: Scratch, version: int = VERSION,
) -> None:  # fmt: skip
    """The gradient of :func:`forward`; the parameters' are left to products with its results.

    The arguments up to ``y`` are those of :func:`forward`, but the weights are not transposed;
    ``d_y`` is the gradient of y, and ``gradients`` are written.
    """
    T, B, n = y.shape
    columns = trail.gates.shape[2]
    slots = trail.history.shape[1]
    incoming = slots - T
    weights, before, trail, scratch = _borrowed_all(weights, before, trail, scratch)
    starts, y, d_y = borrowed(starts), borrowed(y), borrowed(d_y)
    gradients = Gradients(
        borrowed(gradients.bias), borrowed(gradients.history), borrowed(gradients.keys),
        borrowed(gradients.s), borrowed(gradients.c), borrowed(gradients.energy),
        borrowed(gradients.threshold),
    )  # fmt: skip
    tanhs, alphas, places = scratch.tanhs[begin], scratch.alphas[begin], scratch.places
    d_h, context, cell = scratch.d_h, scratch.context[begin], scratch.cell[begin]
    d_query = scratch.d_query[begin]
    if plan.remember == FULL:
        for b in range(begin, end):
            places[b] = np.arange(slots)
            for m in range(incoming):
                if before.ages[b, m] < 0:
                    places[b, m] = -1
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
                    look = places[b, trail.first[t, b] : newest + 1]
                query = trail.gates[t, b, columns - n :]
                d_query[:] = 0
                attend_backward(
                    look, query, weights.energy,
                    trail.history[b], trail.keys[b], trail.log_total[t, b], context, d_s,
                    tanhs, alphas, gradients.history[b], gradients.keys[b],
                    d_query, gradients.energy[b],
                )  # fmt: skip
                query[:] = d_query
                # Every step that looked at h_t lies behind us: its gradient is complete.
                d_state = gradients.history[b, newest]
                for j in range(n):
                    d_h[b, j] = d_s[j] + d_state[j]
            if plan.remember != PLAIN:
                at = (low * slots + newest) * n
                add_product(d_h, low * n, n, gradients.keys, at, slots * n, weights.key, high - low)
            for b in range(low, high):
                gates = trail.gates[t, b]
                if plan.cell == LSTM:
                    previous = before.c[b] if t == 0 else trail.cells[t - 1, b]
                    _lstm_backward(
                        gates, starts[t, b], previous, trail.cells[t, b],
                        d_h[b], gradients.c[b], cell,
                    )  # fmt: skip
                else:
                    _rnn_backward(
                        plan.cell, gates[:n], weights.threshold, trail.history[b, newest],
                        d_h[b], gradients.threshold[b],
                    )  # fmt: skip
                add_scaled(gradients.bias[b], one, gates)
                gradients.s[b] = 0
            at = (t * B + low) * columns
            add_product(
                gradients.s, low * n, n, trail.gates, at, columns, weights.recurrent, high - low
            )
            for b in range(low, high):
                if starts[t, b]:
                    gradients.s[b] = 0
