"""The recurrence over a sequence and its gradient on a GPU, in Triton.

See :mod:`~relagent.memories.kernels.recurrent` for the same loops on the CPU, and
:mod:`~relagent.memories.kernels.records` for the arrays. One program takes a block of rows through
all steps. Its threads share numbers through global memory, and Triton itself synchronises nothing
but its own temporary values: between two ``tl.debug_barrier()`` no number is read and written, nor
written twice, not even by the operation that has just read it (threads may hold copies of a
number). For the same reason nothing may be loaded ahead of its time: kernels have one stage.

Rows beyond the batch repeat the last row, and write nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from relagent.memories.kernels import records
from relagent.memories.kernels.triton_attention import (
    Past,
    Slots,
    attend_backward,
    context,
    earn,
    weigh,
    weigh_backward,
)
from relagent.memories.kernels.triton_cells import (
    gru,
    gru_backward,
    lstm,
    lstm_backward,
    rnn,
    rnn_backward,
)
from relagent.memories.kernels.triton_parts import add_product, entry, load, store
from relagent.memories.kernels.triton_screening import screen

PLAIN = tl.constexpr(records.PLAIN)
RELEVANCY = tl.constexpr(records.RELEVANCY)
FULL = tl.constexpr(records.FULL)
LSTM = tl.constexpr(records.LSTM)


class Given(NamedTuple):
    """What a sequence starts from, beside what stands in the trail."""

    starts: Any
    """[T, B] uint8, 1 where an episode starts."""
    carried: Any
    """[B, L] int32 place of each state that came in, -1 for an empty slot."""
    first: Any
    """[B] int32 the oldest place that came in, L if none did (FULL)."""
    cell: Any
    """[B, n] the LSTM's c that came in."""


class Matrices(NamedTuple):
    """The parameters but for W and b."""

    joint: Any
    """[n, G·n + n] R and W_a, transposed; backward as they are, [G·n + n, n]."""
    key: Any
    """[n, n] U_aᵀ; backward U_a."""
    energy: Any
    """[n] v_a."""
    threshold: Any
    """[n] modReLU's bias."""


class Scratch(NamedTuple):
    """Room for the backward pass to work in."""

    alphas: Any
    """[B, WIDTH], and the other alike."""
    d_energies: Any


@entry
def forward(
    given: tl.tuple, weights: tl.tuple, scores: tl.tensor, energies: tl.tensor,
    trail: tl.tuple, y: tl.tensor,
    T: tl.tensor, B: tl.tensor, L: tl.tensor, WIDTH: tl.tensor,
    REMEMBER: tl.constexpr, CELL: tl.constexpr, G: tl.constexpr, HALVE: tl.constexpr,
    RHO: tl.constexpr, KAPPA: tl.constexpr, N: tl.constexpr,
    ROWS: tl.constexpr, C: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
) -> None:  # fmt: skip
    """ROWS rows of :meth:`Memory.unroll`.

    Args:
        given: a :class:`Given`.
        weights: a :class:`Matrices`.
        scores: [B, WIDTH] relevance, is updated.
        energies: [B, WIDTH] scratch.
        trail: is written; in it stand already the first s, the states that came in with their
            keys, and W x + b in the gates.
        y: [T, B, n], is written.
        T: steps.
        B: rows.
        L: states that came in.
        WIDTH: L for RELEVANCY, L + T for FULL.
        REMEMBER: PLAIN, RELEVANCY or FULL.
        CELL: LSTM, TANH, RELU, MODRELU, GRU or GORU.
        G: 1 for an RNN, 4 for the others.
        HALVE: whether s = (h + context) / 2.
        RHO: ρ.
        KAPPA: κ (RELEVANCY).
        N: n.
        ROWS: rows of a program.
        C: columns at a time; divides n.
        S: slots at a time.
        D: terms of a product at a time; divides n.
    """
    GATES: tl.constexpr = G * N
    COLUMNS: tl.constexpr = GATES if REMEMBER == PLAIN else GATES + N
    dtype = y.dtype.element_ty
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = row < B
    row = tl.minimum(row, B - 1).to(tl.int64)
    history = trail.history + row * (L + T) * N
    keys = trail.keys + row * (L + T) * N
    carried = given.carried + row * L
    scores += row * WIDTH
    energies += row * WIDTH
    oldest = tl.load(given.first + row) if REMEMBER == FULL else row.to(tl.int32)

    for t in range(T):
        at = row + t * B
        started = tl.load(given.starts + at) != 0
        goes_on = mine & (at + B < T * B)
        ends = tl.load(given.starts + at + B, mask=goes_on, other=1) != 0
        newest = L + t
        state = history + newest * N
        gates = trail.gates + at * COLUMNS
        before = given.cell + row * N if t == 0 else trail.cells + (at - B) * N
        places = trail.places + at * KAPPA
        if REMEMBER == RELEVANCY:
            old = carried if t == 0 else places - B * KAPPA
            K: tl.constexpr = triton.next_power_of_2(KAPPA)
            screen(old, places, scores, newest, started, mine, RHO, KAPPA, K)
        elif REMEMBER == FULL:
            oldest = tl.where(started, newest, oldest)
            tl.store(trail.first + at, oldest, mask=mine)

        # The gates before their nonlinearities, W x + b + R s, and the query W_a s.
        for begin in range(0, COLUMNS, C):
            column = begin + tl.arange(0, C)
            inputs = (column < GATES)[None, :]
            z = tl.load(gates[:, None] + column[None, :], mask=inputs, other=0)
            z = add_product(z, trail.s + at * N, weights.joint, column, N, COLUMNS, D)
            tl.debug_barrier()
            store(gates, column, z, mine)
        tl.debug_barrier()

        for begin in range(0, N, C):
            column = begin + tl.arange(0, C)
            if CELL == LSTM:
                h = lstm(gates, before, trail.cells + at * N, started, mine, column, N)
            elif G == 4:
                h = gru(gates, weights.threshold, trail.s + at * N, mine, column, CELL, N)
            else:
                h = rnn(gates, weights.threshold, mine, column, CELL)
            store(state, column, h, mine)
            if REMEMBER == PLAIN:
                store(y + at * N, column, h, mine)
                store(trail.s + (at + B) * N, column, tl.where(ends[:, None], 0, h), goes_on)
        tl.debug_barrier()

        if REMEMBER != PLAIN:
            for begin in range(0, N, C):
                column = begin + tl.arange(0, C)
                product = tl.zeros([ROWS, C], dtype)
                product = add_product(product, state, weights.key, column, N, N, D)
                store(keys + newest * N, column, product, mine)
            tl.debug_barrier()

            low = tl.min(oldest, axis=0) if REMEMBER == FULL else 0
            end = newest + 1 if REMEMBER == FULL else KAPPA
            slots = Slots(places, carried, L, oldest, newest, low, end)
            past = Past(gates + GATES, keys, history, weights.energy)
            highest, total = weigh(past, slots, energies, mine, REMEMBER, N, C, S)
            tl.store(trail.log_total + at, highest + tl.log(total), mask=mine)
            tl.debug_barrier()

            earn(scores, slots, energies, highest, total, mine, RHO, S)
            for begin in range(0, N, C):
                column = begin + tl.arange(0, C)
                s = context(past, slots, energies, highest, total, column, REMEMBER, N, S)
                s += load(state, column)
                if HALVE:
                    s *= 0.5
                store(y + at * N, column, s, mine)
                store(trail.s + (at + B) * N, column, tl.where(ends[:, None], 0, s), goes_on)
            tl.debug_barrier()


@entry
def backward(
    given: tl.tuple, weights: tl.tuple, scratch: tl.tuple, trail: tl.tuple, y: tl.tensor,
    d_y: tl.tensor, gradients: tl.tuple,
    T: tl.tensor, B: tl.tensor, L: tl.tensor, WIDTH: tl.tensor,
    REMEMBER: tl.constexpr, CELL: tl.constexpr, G: tl.constexpr, HALVE: tl.constexpr,
    RHO: tl.constexpr, KAPPA: tl.constexpr, N: tl.constexpr,
    ROWS: tl.constexpr, C: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of :func:`forward`; the parameters' are left to products with its results.

    The arguments that :func:`forward` has too are the same; ``scratch`` is a :class:`Scratch`,
    ``d_y`` the gradient of y, and ``gradients`` are written, but for that of the bias.
    """
    GATES: tl.constexpr = G * N
    COLUMNS: tl.constexpr = GATES if REMEMBER == PLAIN else GATES + N
    dtype = y.dtype.element_ty
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = row < B
    row = tl.minimum(row, B - 1).to(tl.int64)
    history = trail.history + row * (L + T) * N
    d_history = gradients.history + row * (L + T) * N
    d_keys = gradients.keys + row * (L + T) * N
    d_s = gradients.s + row * N
    d_c = gradients.c + row * N
    d_threshold = gradients.threshold + row * N
    d_energy = gradients.energy + row * N
    alphas = scratch.alphas + row * WIDTH
    d_energies = scratch.d_energies + row * WIDTH

    for backwards in range(T):
        t = T - 1 - backwards
        at = row + t * B
        started = tl.load(given.starts + at) != 0
        newest = L + t
        gates = trail.gates + at * COLUMNS
        before = given.cell + row * N if t == 0 else trail.cells + (at - B) * N

        # The macro-state's gradient: from its output and from the step after; from here on it is
        # that of h + context.
        mean = tl.zeros([ROWS], dtype)
        for begin in range(0, N, C):
            column = begin + tl.arange(0, C)
            d_sum = load(d_s, column) + load(d_y + at * N, column)
            total = load(y + at * N, column)
            if HALVE:
                d_sum *= 0.5
                total *= 2
            mean += tl.sum(d_sum * (total - load(history + newest * N, column)), axis=1)
            tl.debug_barrier()
            store(d_s, column, d_sum, mine)
        tl.debug_barrier()

        if REMEMBER != PLAIN:
            oldest = tl.load(trail.first + at) if REMEMBER == FULL else row.to(tl.int32)
            low = tl.min(oldest, axis=0) if REMEMBER == FULL else 0
            end = newest + 1 if REMEMBER == FULL else KAPPA
            places = trail.places + at * KAPPA
            slots = Slots(places, given.carried + row * L, L, oldest, newest, low, end)
            past = Past(gates + GATES, trail.keys + row * (L + T) * N, history, weights.energy)
            log_total = tl.load(trail.log_total + at)
            weigh_backward(
                past, slots, log_total, mean, d_s, alphas, d_energies, mine, REMEMBER, N, C, S
            )
            tl.debug_barrier()
            for begin in range(0, N, C):
                column = begin + tl.arange(0, C)
                attend_backward(
                    past, slots, d_s, alphas, d_energies, d_history, d_keys, d_energy, mine,
                    column, REMEMBER, N, S,
                )  # fmt: skip
            tl.debug_barrier()

        # Every step that looked at h_t lies behind us: its gradient is complete.
        for begin in range(0, N, C):
            column = begin + tl.arange(0, C)
            d_h = load(d_s, column)
            if REMEMBER != PLAIN:
                d_h += load(d_history + newest * N, column)
                d_h = add_product(d_h, d_keys + newest * N, weights.key, column, N, N, D)
            if CELL == LSTM:
                cell = trail.cells + at * N
                lstm_backward(gates, before, cell, d_h, d_c, started, mine, column, N)
            elif G == 4:
                s = trail.s + at * N
                gru_backward(gates, s, d_h, d_s, d_threshold, mine, column, CELL, N)
            else:
                rnn_backward(gates, d_h, d_threshold, mine, column, CELL)
        tl.debug_barrier()

        for begin in range(0, N, C):
            column = begin + tl.arange(0, C)
            product = tl.zeros([ROWS, C], dtype)
            if CELL != LSTM and G == 4:
                product += load(d_s, column)
            product = add_product(product, gates, weights.joint, column, COLUMNS, N, D)
            tl.debug_barrier()
            store(d_s, column, tl.where(started[:, None], 0, product), mine)
        tl.debug_barrier()
