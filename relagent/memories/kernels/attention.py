"""Additive attention of one row to its history, and its gradient.

The history is one array [L + T, n] of hidden states, oldest first, with the keys U_a h beside it;
what is remembered at a step is a list of places in it, -1 for an empty slot. Nothing is moved, and
nothing of a step is kept for the gradient but ln Σ exp(e): the rest is computed again, block by
block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from relagent.memories.kernels.native import jit, jit_sums, wide_vectors
from relagent.memories.kernels.transcendental import exp, exp_within, tanh

BLOCK = 32
"""Slots whose tanh(W_a s + U_a h) are held at a time."""
RANGES = (40.0, 350.0)
"""Up to here e^(2x) keeps all of its digits, in float32 and in float64."""


class Query(NamedTuple):
    """What the history is asked."""

    plain: Any
    """[n] W_a s."""
    power: Any
    """[n] e^(2 W_a s)."""
    in_range: Any
    """Whether the power is to be trusted."""


class Keys(NamedTuple):
    """What it is compared with: tanh of a sum needs but one division where the powers are known."""

    plain: Any
    """[L + T, n] U_a h."""
    powers: Any
    """[L + T, n] e^(2 U_a h); or [0, n]: they are computed where they are needed."""
    in_range: Any
    """[L + T] whether the power is to be trusted; or [0]."""


@jit
def fill(out: Any, value: Any) -> None:
    """``out[:] = value``, without the checks of an assignment to a slice."""
    wide_vectors()
    for j in range(out.shape[0]):
        out[j] = value


@jit
def copy(out: Any, x: Any) -> None:
    """``out[:] = x``, without the checks of an assignment to a slice."""
    wide_vectors()
    for j in range(x.shape[0]):
        out[j] = x[j]


@jit
def add_scaled(out: Any, factor: Any, x: Any) -> None:
    """``out += factor * x``."""
    wide_vectors()
    for j in range(x.shape[0]):
        out[j] += factor * x[j]


@jit_sums
def dot(x: Any, y: Any) -> Any:
    """Return the inner product, of x's type."""
    wide_vectors()
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += x[j] * y[j]
    return total


@jit
def raise_to_power(x: Any, out: Any) -> bool:
    """``out = e^(2x)``; return whether all of x is within :data:`RANGES`."""
    wide_vectors()
    limit = x.dtype.type(RANGES[0] if x.itemsize == 4 else RANGES[1])
    beyond = 0
    for j in range(x.shape[0]):
        beyond += 0 if abs(x[j]) <= limit else 1  # so that NaN counts
    for j in range(x.shape[0]):
        out[j] = exp_within(x[j] + x[j])
    return beyond == 0


@jit
def _shortfalls(places: Any, query: Query, keys: Keys, out: Any) -> None:
    """``out[i] = (1 - tanh(q + k)) / 2 = 1 / (1 + e^(2q) e^(2k))`` for the keys at the places.

    An empty slot's is left as it is.
    """
    wide_vectors()
    one, half = out.dtype.type(1), out.dtype.type(0.5)
    for i in range(places.shape[0]):
        place = places[i]
        if place < 0:
            continue
        key, r = keys.plain[place], out[i]
        if keys.powers.shape[0] == 0:
            in_range = raise_to_power(key, r)
            for j in range(r.shape[0]):
                r[j] = one / (one + query.power[j] * r[j])
        else:
            in_range, power = keys.in_range[place], keys.powers[place]
            for j in range(r.shape[0]):
                r[j] = one / (one + query.power[j] * power[j])
        if not (in_range and query.in_range):
            for j in range(r.shape[0]):
                r[j] = half - half * tanh(query.plain[j] + key[j])


@jit
def attend(
    places: Any, query: Query, energy_weight: Any, history: Any, keys: Keys,
    shortfalls: Any, weights: Any, context: Any,
) -> Any:  # fmt: skip
    """Look back at ``history[places]``.

    Args:
        places: [K] which states, at least one of them occupied.
        query: of this step.
        energy_weight: [n] v_a.
        history: [L + T, n].
        keys: of the history.
        shortfalls: [BLOCK, n] scratch.
        weights: [K] becomes α.
        context: [n], Σ α h is added to it.

    Returns:
        ln Σ exp(e), for e without what is the same for all slots, Σ v_a.
    """
    wide_vectors()
    slots = places.shape[0]
    minus_two = -energy_weight.dtype.type(2)
    minus_infinity = -energy_weight.dtype.type(np.inf)
    highest = minus_infinity
    for begin in range(0, slots, BLOCK):
        block = places[begin : begin + BLOCK]
        _shortfalls(block, query, keys, shortfalls)
        for i in range(block.shape[0]):
            e = minus_infinity
            if block[i] >= 0:
                e = minus_two * dot(energy_weight, shortfalls[i])
            weights[begin + i] = e
            highest = max(highest, e)
    for i in range(slots):
        weights[i] = exp(weights[i] - highest)
    total = weights[0]
    for i in range(1, slots):
        total += weights[i]
    for i in range(slots):
        weights[i] /= total
        if places[i] >= 0:
            add_scaled(context, weights[i], history[places[i]])
    return highest + energy_weight.dtype.type(np.log(total))


@jit
def attend_backward(
    places: Any, query: Query, energy_weight: Any, history: Any, keys: Keys,
    log_total: Any, context: Any, d_context: Any,
    shortfalls: Any, weights: Any,
    d_history: Any, d_keys: Any, d_query: Any, d_energy_weight: Any,
) -> None:  # fmt: skip
    """Add the gradient of :func:`attend` to ``d_history``, ``d_keys``, and so on.

    The arguments up to ``keys`` are those of :func:`attend`, and ``log_total`` is what it returned;
    ``context`` [n] is Σ α h without what that was added to, and ``d_context`` its gradient;
    ``shortfalls`` [BLOCK, n] and ``weights`` [BLOCK] are scratch. The gradients of query and keys
    are those of W_a s and U_a h.
    """
    wide_vectors()
    n = context.shape[0]
    real = energy_weight.dtype.type
    one, two, four = real(1), real(2), real(4)
    # Σ_j α_j ∂/∂α_j = d_context · Σ_j α_j h_j, so that one pass is enough.
    mean = dot(d_context, context)
    for begin in range(0, places.shape[0], BLOCK):
        block = places[begin : begin + BLOCK]
        _shortfalls(block, query, keys, shortfalls)
        for i in range(block.shape[0]):
            e = -two * dot(energy_weight, shortfalls[i]) if block[i] >= 0 else real(0)
            weights[i] = e - log_total
        for i in range(block.shape[0]):
            weights[i] = exp(weights[i])
        for i in range(block.shape[0]):
            place = block[i]
            if place < 0:
                continue
            state, r, d_key = history[place], shortfalls[i], d_keys[place]
            d_energy = weights[i] * (dot(d_context, state) - mean)
            add_scaled(d_history[place], weights[i], d_context)
            add_scaled(d_energy_weight, -two * d_energy, r)
            for j in range(n):  # ∂ tanh = 1 - tanh² = 4 r (1 - r)
                r[j] = four * d_energy * energy_weight[j] * (r[j] * (one - r[j]))
            add_scaled(d_key, one, r)
            add_scaled(d_query, one, r)
