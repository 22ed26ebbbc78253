"""Additive attention of a block of rows to their history, and its gradient, on a GPU.

See :mod:`~relagent.memories.kernels.attention` for the same on the CPU: the history is never moved,
what is remembered at a step is a list of places in it, and the gradient computes the rest again
from ln Σ exp(e). Whoever writes puts a barrier between what was read before and the writing; the
one behind it is the caller's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton.language as tl

from relagent.memories.kernels import records
from relagent.memories.kernels.triton_parts import jit, load, store, tanh

RELEVANCY = tl.constexpr(records.RELEVANCY)


class Slots(NamedTuple):
    """What the rows of a program remember at a step: slots from ``low`` to ``end``."""

    places: Any
    """List of κ places, -1 for an empty slot (RELEVANCY)."""
    carried: Any
    """List of the places of the states that came in, -1 for an empty one (FULL)."""
    incoming: Any
    """How many came in."""
    oldest: Any
    """[ROWS] the first place that is remembered (FULL)."""
    newest: Any
    """The last place that is remembered."""
    low: Any
    end: Any


class Past(NamedTuple):
    """What is looked at, and with which query."""

    query: Any
    """[n] W_a s."""
    keys: Any
    """[L + T, n] U_a h."""
    history: Any
    """[L + T, n] h."""
    energy: Any
    """[n] v_a, the same for all rows."""


@jit
def _places(slots: tl.tuple, slot: tl.tensor, REMEMBER: tl.constexpr) -> Any:
    """Return the places in the history of these slots [S], -1 for an empty one, [ROWS, S]."""
    if REMEMBER == RELEVANCY:
        inside = (slot < slots.end)[None, :]
        place = tl.load(slots.places[:, None] + slot[None, :], mask=inside, other=-1)
    else:
        came_in = (slot < slots.incoming)[None, :]
        place = tl.load(slots.carried[:, None] + slot[None, :], mask=came_in, other=0)
        inside = (slot[None, :] >= slots.oldest[:, None]) & (slot <= slots.newest)[None, :]
        place = tl.where(inside & (place >= 0), slot[None, :], -1)
    return place.to(tl.int64)


@jit
def _gather(vectors: tl.tensor, place: tl.tensor, column: tl.tensor, N: tl.constexpr) -> Any:
    """Return columns of each row's vectors at the places, 0 for an empty one, [ROWS, S, C]."""
    at = vectors[:, None] + place * N
    occupied = (place >= 0)[:, :, None]
    return tl.load(at[:, :, None] + column[None, None, :], mask=occupied, other=0)


@jit
def _scatter(
    vectors: tl.tensor,
    place: tl.tensor,
    column: tl.tensor,
    value: tl.tensor,
    mine: tl.tensor,
    N: tl.constexpr,
) -> None:
    """Write columns of each row's vectors at the places; an empty one is left out."""
    at = vectors[:, None] + place * N
    occupied = ((place >= 0) & mine[:, None])[:, :, None]
    tl.store(at[:, :, None] + column[None, None, :], value, mask=occupied)


@jit
def _activations(past: tl.tuple, place: tl.tensor, column: tl.tensor, N: tl.constexpr) -> Any:
    """Return columns of tanh(W_a s + U_a h), [ROWS, S, C]; an empty slot's is not used."""
    return tanh(load(past.query, column)[:, None, :] + _gather(past.keys, place, column, N))


@jit
def _energies(past: tl.tuple, place: tl.tensor, N: tl.constexpr, C: tl.constexpr) -> Any:
    """Return e [ROWS, S], -inf for an empty slot."""
    e = tl.zeros(place.shape, past.energy.dtype.element_ty)
    for begin in range(0, N, C):
        column = begin + tl.arange(0, C)
        v = tl.load(past.energy + column)[None, None, :]
        e += tl.sum(v * _activations(past, place, column, N), axis=2)
    return tl.where(place >= 0, e, float("-inf"))


@jit
def weigh(
    past: tl.tuple,
    slots: tl.tuple,
    energies: tl.tensor,
    mine: tl.tensor,
    REMEMBER: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
    S: tl.constexpr,
) -> Any:
    """Write the ``energies`` of all slots; return max e and Σ exp(e - max e), [ROWS] each."""
    dtype = past.energy.dtype.element_ty
    highest = tl.full(mine.shape, -1e30, dtype)  # below any energy; -inf - -inf is no number
    total = tl.zeros(mine.shape, dtype)
    for m in range(slots.low, slots.end, S):
        slot = m + tl.arange(0, S)
        e = _energies(past, _places(slots, slot, REMEMBER), N, C)
        inside = mine[:, None] & (slot < slots.end)[None, :]
        tl.store(energies[:, None] + slot[None, :], e, mask=inside)
        higher = tl.maximum(highest, tl.max(e, axis=1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(e - higher[:, None]), axis=1)
        highest = higher
    return highest, total


@jit
def _weights(
    energies: tl.tensor, highest: tl.tensor, total: tl.tensor, slot: tl.tensor, end: tl.tensor
) -> Any:
    """Return α [ROWS, S], 0 for an empty slot."""
    inside = (slot < end)[None, :]
    e = tl.load(energies[:, None] + slot[None, :], mask=inside, other=float("-inf"))
    return tl.exp(e - highest[:, None]) / total[:, None]


@jit
def context(
    past: tl.tuple,
    slots: tl.tuple,
    energies: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    column: tl.tensor,
    REMEMBER: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
) -> Any:
    """Return columns of Σ α h, [ROWS, C]."""
    mean = tl.zeros([highest.shape[0], column.shape[0]], past.energy.dtype.element_ty)
    for m in range(slots.low, slots.end, S):
        slot = m + tl.arange(0, S)
        alpha = _weights(energies, highest, total, slot, slots.end)
        states = _gather(past.history, _places(slots, slot, REMEMBER), column, N)
        mean += tl.sum(alpha[:, :, None] * states, axis=1)
    return mean


@jit
def earn(
    scores: tl.tensor,
    slots: tl.tuple,
    energies: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    mine: tl.tensor,
    RHO: tl.constexpr,
    S: tl.constexpr,
) -> None:
    """Add α to the scores, but not to those of the relevant set."""
    for m in range(slots.low, slots.end, S):
        slot = m + tl.arange(0, S)
        alpha = _weights(energies, highest, total, slot, slots.end)
        earning = mine[:, None] & ((slot >= RHO) & (slot < slots.end))[None, :]
        score = tl.load(scores[:, None] + slot[None, :], mask=earning, other=0)
        tl.debug_barrier()
        tl.store(scores[:, None] + slot[None, :], score + alpha, mask=earning)


@jit
def weigh_backward(
    past: tl.tuple,
    slots: tl.tuple,
    log_total: tl.tensor,
    mean: tl.tensor,
    d_context: tl.tensor,
    alphas: tl.tensor,
    d_energies: tl.tensor,
    mine: tl.tensor,
    REMEMBER: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
    S: tl.constexpr,
) -> None:
    """Write α and the gradient of e of all slots.

    Args:
        past: as it was in the step.
        slots: as they were.
        log_total: [ROWS] ln Σ exp(e).
        mean: [ROWS] Σ_j α_j ∂/∂α_j = d_context · Σ_j α_j h_j.
        d_context: [n] gradient of Σ α h.
        alphas: is written.
        d_energies: is written.
        mine: [ROWS] which rows are this program's own.
        REMEMBER: and the others: see :func:`~relagent.memories.kernels.triton_recurrent.forward`.
        N: n.
        C: columns at a time.
        S: slots at a time.
    """
    for m in range(slots.low, slots.end, S):
        slot = m + tl.arange(0, S)
        place = _places(slots, slot, REMEMBER)
        alpha = tl.exp(_energies(past, place, N, C) - log_total[:, None])
        d_alpha = tl.zeros(place.shape, past.energy.dtype.element_ty)
        for begin in range(0, N, C):
            column = begin + tl.arange(0, C)
            states = _gather(past.history, place, column, N)
            d_alpha += tl.sum(load(d_context, column)[:, None, :] * states, axis=2)
        inside = mine[:, None] & (slot < slots.end)[None, :]
        d_e = alpha * (d_alpha - mean[:, None])
        tl.store(alphas[:, None] + slot[None, :], alpha, mask=inside)
        tl.store(d_energies[:, None] + slot[None, :], d_e, mask=inside)


@jit
def attend_backward(
    past: tl.tuple,
    slots: tl.tuple,
    d_context: tl.tensor,
    alphas: tl.tensor,
    d_energies: tl.tensor,
    d_history: tl.tensor,
    d_keys: tl.tensor,
    d_energy: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    REMEMBER: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
) -> None:
    """Add these columns' gradients to ``d_history``, ``d_keys`` and ``d_energy``.

    That of the query is written over it. The arguments up to ``d_energies`` are those of
    :func:`weigh_backward`.
    """
    v = tl.load(past.energy + column)[None, None, :]
    d_c = load(d_context, column)
    d_v = load(d_energy, column)
    d_query = tl.zeros(d_c.shape, past.energy.dtype.element_ty)
    for m in range(slots.low, slots.end, S):
        slot = m + tl.arange(0, S)
        inside = (slot < slots.end)[None, :]
        place = _places(slots, slot, REMEMBER)
        alpha = tl.load(alphas[:, None] + slot[None, :], mask=inside, other=0)
        d_e = tl.load(d_energies[:, None] + slot[None, :], mask=inside, other=0)
        z = _activations(past, place, column, N)
        d_v += tl.sum(d_e[:, :, None] * z, axis=1)
        d_z = d_e[:, :, None] * v * (1 - z * z)
        d_query += tl.sum(d_z, axis=1)
        # A place stands in one slot alone, so no number is added to twice.
        d_state = _gather(d_history, place, column, N) + alpha[:, :, None] * d_c[:, None, :]
        d_key = _gather(d_keys, place, column, N) + d_z
        tl.debug_barrier()
        _scatter(d_history, place, column, d_state, mine, N)
        _scatter(d_keys, place, column, d_key, mine, N)
    # The last barrier of the loop lies behind all that was read.
    store(d_energy, column, d_v, mine)
    store(past.query, column, d_query, mine)
