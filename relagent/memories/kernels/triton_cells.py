"""A step through a cell, and its gradient, for columns of a block of rows on a GPU.

See :mod:`~relagent.memories.kernels.cells` for the same on the CPU, and
:mod:`~relagent.memories.kernels.triton_parts` for what a name stands for.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from relagent.memories.kernels import records
from relagent.memories.kernels.triton_parts import jit, load, store, tanh

TANH = tl.constexpr(records.TANH)
RELU = tl.constexpr(records.RELU)
MODRELU = tl.constexpr(records.MODRELU)
GORU = tl.constexpr(records.GORU)


@jit
def lstm(
    gates: tl.tensor,
    previous: tl.tensor,
    cell: tl.tensor,
    started: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    N: tl.constexpr,
) -> Any:
    """Gates before -> after their nonlinearities; writes c over ``cell``; returns h."""
    i = tl.sigmoid(load(gates, column))
    f = tl.sigmoid(load(gates + N, column))
    g = tanh(load(gates + 2 * N, column))
    o = tl.sigmoid(load(gates + 3 * N, column))
    c = i * g + tl.where(started[:, None], 0, f * load(previous, column))
    tl.debug_barrier()
    store(gates, column, i, mine)
    store(gates + N, column, f, mine)
    store(gates + 2 * N, column, g, mine)
    store(gates + 3 * N, column, o, mine)
    store(cell, column, c, mine)
    return o * tanh(c)


@jit
def lstm_backward(
    gates: tl.tensor,
    previous: tl.tensor,
    cell: tl.tensor,
    d_h: tl.tensor,
    d_c: tl.tensor,
    started: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    N: tl.constexpr,
) -> None:
    """Gates -> their gradient before the nonlinearities; d_c of c_t -> that of c_{t-1}."""
    i = load(gates, column)
    f = load(gates + N, column)
    g = load(gates + 2 * N, column)
    o = load(gates + 3 * N, column)
    tanh_c = tanh(load(cell, column))
    d_cell = load(d_c, column) + d_h * o * (1 - tanh_c * tanh_c)
    d_f = d_cell * load(previous, column) * (f * (1 - f))
    tl.debug_barrier()
    store(gates, column, d_cell * g * (i * (1 - i)), mine)
    store(gates + N, column, tl.where(started[:, None], 0, d_f), mine)
    store(gates + 2 * N, column, d_cell * i * (1 - g * g), mine)
    store(gates + 3 * N, column, d_h * tanh_c * (o * (1 - o)), mine)
    store(d_c, column, tl.where(started[:, None], 0, d_cell * f), mine)


@jit
def gru(
    gates: tl.tensor,
    threshold: tl.tensor,
    s: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    CELL: tl.constexpr,
    N: tl.constexpr,
) -> Any:
    """Gates before -> after their nonlinearities; returns h. ``s`` is what they were made of."""
    r = tl.sigmoid(load(gates, column))
    z = tl.sigmoid(load(gates + N, column))
    c = load(gates + 2 * N, column) + r * load(gates + 3 * N, column)
    c = activation(c, threshold, column, MODRELU if CELL == GORU else TANH)
    tl.debug_barrier()
    store(gates, column, r, mine)
    store(gates + N, column, z, mine)
    store(gates + 2 * N, column, c, mine)
    return (1 - z) * c + z * load(s, column)


@jit
def gru_backward(
    gates: tl.tensor,
    s: tl.tensor,
    d_h: tl.tensor,
    d_s: tl.tensor,
    d_threshold: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    CELL: tl.constexpr,
    N: tl.constexpr,
) -> None:
    """Gates -> their gradient before the nonlinearities; adds to d_threshold.

    What s has past the gates is written to d_s.
    """
    r = load(gates, column)
    z = load(gates + N, column)
    c = load(gates + 2 * N, column)
    inner = load(gates + 3 * N, column)
    d_z = d_h * (load(s, column) - c) * (z * (1 - z))
    d_c = d_h * (1 - z)
    d_c = activation_backward(c, d_c, d_threshold, mine, column, MODRELU if CELL == GORU else TANH)
    tl.debug_barrier()
    store(gates, column, d_c * inner * (r * (1 - r)), mine)
    store(gates + N, column, d_z, mine)
    store(gates + 2 * N, column, d_c, mine)
    store(gates + 3 * N, column, d_c * r, mine)
    store(d_s, column, d_h * z, mine)


@jit
def rnn(
    gates: tl.tensor,
    threshold: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    CELL: tl.constexpr,
) -> Any:
    """Write φ(z) over z, and return it."""
    h = activation(load(gates, column), threshold, column, CELL)
    tl.debug_barrier()
    store(gates, column, h, mine)
    return h


@jit
def rnn_backward(
    gates: tl.tensor,
    d_h: tl.tensor,
    d_threshold: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    CELL: tl.constexpr,
) -> None:
    """Write z's gradient over φ(z); add to d_threshold."""
    d_z = activation_backward(load(gates, column), d_h, d_threshold, mine, column, CELL)
    tl.debug_barrier()
    store(gates, column, d_z, mine)


@jit
def activation(z: tl.tensor, threshold: tl.tensor, column: tl.tensor, KIND: tl.constexpr) -> Any:
    """Return φ(z)."""
    if KIND == TANH:
        h = tanh(z)
    elif KIND == RELU:
        h = tl.where(z < 0, 0, z)  # not a maximum: what is not a number has to stay
    else:
        size = tl.abs(z) + tl.load(threshold + column)[None, :]
        size = tl.where(size < 0, 0, size)
        h = tl.where(z > 0, size, tl.where(z < 0, -size, 0 * z))
    return h


@jit
def activation_backward(
    h: tl.tensor,
    d_h: tl.tensor,
    d_threshold: tl.tensor,
    mine: tl.tensor,
    column: tl.tensor,
    KIND: tl.constexpr,
) -> Any:
    """Return z's gradient, from that of h = φ(z); adds to d_threshold."""
    if KIND == TANH:
        d_z = d_h * (1 - h * h)
    elif KIND == RELU:
        d_z = tl.where(h > 0, d_h, 0)
    else:  # modReLU is 0 only where its slope is
        d_z = tl.where(h != 0, d_h, 0)
        d_bias = load(d_threshold, column) + tl.where(h > 0, d_z, -d_z)
        tl.debug_barrier()
        store(d_threshold, column, d_bias, mine)
    return d_z
