"""What the recurrent kernels are given and what they write, as tuples of arrays.

Arrays are time-major and named as in the definitions; a backend says how wide n has to be. Gates
have G·n columns (G = 4 for the LSTM: i, f, g, o; 4 for GRU and GORU: r, z, what the candidate reads
of x, what it reads of h, so that two of their blocks of weights are 0; 1 for the RNN), and W_a's
query stands right of them, since both read s_{t-1}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PLAIN, RELEVANCY, FULL = 0, 1, 2
"""What is remembered."""
LSTM, TANH, RELU, MODRELU, GRU, GORU = 0, 1, 2, 3, 4, 5
"""The cell: an LSTM, an RNN by its nonlinearity, a GRU or a GORU."""


class Plan(NamedTuple):
    """What is to be computed."""

    remember: int
    """PLAIN, RELEVANCY or FULL."""
    cell: int
    """LSTM, TANH, RELU, MODRELU, GRU or GORU."""
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
    """[T, B, G·n + n] gates after their nonlinearities (of GRU and GORU: r, z, the candidate and
    what it reads of h), and the query."""
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
    """[T, B] ln Σ exp(e), up to what a backend leaves out of every e alike."""


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

    shortfalls: Any
    """[B, BLOCK, n]."""
    alphas: Any
    """[B, L + T]."""
    places: Any
    """[B, L + T] int32: those that the incoming state occupies (or -1), then the sequence's own."""
    powers: Any
    """[B, L + T, n] e^(2k) of the keys; [B, 0, n] for a single step, which looks at each once."""
    in_range: Any
    """[B, L + T] bool, or [B, 0]: whether that power is to be trusted."""
    query: Any
    """[B, n] power of the query."""
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
