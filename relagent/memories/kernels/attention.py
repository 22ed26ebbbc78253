"""Additive attention of one row to its history, and its gradient.

The history is one array [L + T, n] of hidden states, oldest first, with the keys U_a h beside it;
what is remembered at a step is a list of places in it, -1 for an empty slot. Nothing is moved, and
nothing of a step is kept for the gradient but ln Σ exp(e): the rest is computed again, block by
block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from relagent.memories.kernels.native import jit, jit_sums, wide_vectors
from relagent.memories.kernels.transcendental import exp, tanh

BLOCK = 32
"""Slots whose tanh(W_a s + U_a h) are held at a time."""


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
    total = x[0] * y[0]
    for j in range(1, x.shape[0]):
        total += x[j] * y[j]
    return total


@jit
def _tanhs(places: Any, query: Any, keys: Any, out: Any) -> None:
    """``out[i] = tanh(query + keys[places[i]])``; an empty slot's is finite and not used."""
    wide_vectors()
    n = query.shape[0]
    for i in range(places.shape[0]):
        key = keys[max(places[i], 0)]
        z = out[i]
        for j in range(n):
            z[j] = query[j] + key[j]
    flat = out.reshape(-1)[: places.shape[0] * n]
    for j in range(flat.shape[0]):
        flat[j] = tanh(flat[j])


@jit
def attend(
    places: Any, query: Any, energy_weight: Any, history: Any, keys: Any,
    tanhs: Any, weights: Any, context: Any,
) -> Any:  # fmt: skip
    """Look back at ``history[places]``.

    Args:
        places: [K] which states, at least one of them occupied.
        query: [n] W_a s.
        energy_weight: [n] v_a.
        history: [L + T, n] and keys alike.
        keys: U_a h.
        tanhs: [BLOCK, n] scratch.
        weights: [K] becomes α.
        context: [n], Σ α h is added to it.

    Returns:
        ln Σ exp(e).
    """
    wide_vectors()
    slots = places.shape[0]
    minus_infinity = -energy_weight.dtype.type(np.inf)
    highest = minus_infinity
    for begin in range(0, slots, BLOCK):
        block = places[begin : begin + BLOCK]
        _tanhs(block, query, keys, tanhs)
        for i in range(block.shape[0]):
            e = dot(energy_weight, tanhs[i]) if block[i] >= 0 else minus_infinity
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
    places: Any, query: Any, energy_weight: Any, history: Any, keys: Any,
    log_total: Any, context: Any, d_context: Any,
    tanhs: Any, weights: Any,
    d_history: Any, d_keys: Any, d_query: Any, d_energy_weight: Any,
) -> None:  # fmt: skip
    """Add the gradient of :func:`attend` to ``d_history``, ``d_keys``, and so on.

    The arguments up to ``keys`` are those of :func:`attend`, and ``log_total`` is what it returned;
    ``context`` [n] is Σ α h without what that was added to, and ``d_context`` its gradient;
    ``tanhs`` [BLOCK, n] and ``weights`` [BLOCK] are scratch.
    """
    wide_vectors()
    n = query.shape[0]
    one = energy_weight.dtype.type(1)
    # Σ_j α_j ∂/∂α_j = d_context · Σ_j α_j h_j, so that one pass is enough.
    mean = dot(d_context, context)
    for begin in range(0, places.shape[0], BLOCK):
        block = places[begin : begin + BLOCK]
        _tanhs(block, query, keys, tanhs)
        for i in range(block.shape[0]):
            weights[i] = dot(energy_weight, tanhs[i]) - log_total
        for i in range(block.shape[0]):
            weights[i] = exp(weights[i])
        for i in range(block.shape[0]):
            place = block[i]
            if place < 0:
                continue
            state, z, d_key = history[place], tanhs[i], d_keys[place]
            d_energy = weights[i] * (dot(d_context, state) - mean)
            add_scaled(d_history[place], weights[i], d_context)
            add_scaled(d_energy_weight, d_energy, z)
            for j in range(n):
                z[j] = d_energy * energy_weight[j] * (one - z[j] * z[j])
            add_scaled(d_key, one, z)
            add_scaled(d_query, one, z)
