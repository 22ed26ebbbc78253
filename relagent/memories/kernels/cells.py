"""One row's step through a cell, and its gradient, written over the gates.

See :mod:`relagent.memories.cells` for the equations. A loop writes to few arrays: LLVM gives up on
vectors where it would have to compare too many addresses.
"""

from __future__ import annotations

from typing import Any

from relagent.memories.kernels.native import jit, wide_vectors
from relagent.memories.kernels.records import GORU, MODRELU, RELU, TANH
from relagent.memories.kernels.transcendental import sigmoid, tanh


@jit
def lstm(gates: Any, start: bool, previous: Any, c: Any, h: Any) -> None:
    """Gates before -> after their nonlinearities; writes c and h."""
    wide_vectors()
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
def lstm_backward(
    gates: Any, start: bool, previous: Any, c: Any, d_h: Any, d_c: Any, scratch: Any
) -> None:
    """Gates -> their gradient before the nonlinearities; d_c of c_t -> that of c_{t-1}."""
    wide_vectors()
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
def gru(cell: int, gates: Any, threshold: Any, s: Any, h: Any) -> None:
    """Gates before -> after their nonlinearities; writes h. ``s`` is what the gates were made of.

    The third is the candidate, tanh of the GRU and modReLU of the GORU, and the fourth, what it
    reads of s, stays.
    """
    wide_vectors()
    n = h.shape[0]
    one = gates.dtype.type(1)
    reset_update, candidate, inner = gates[: 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    for j in range(2 * n):
        reset_update[j] = sigmoid(reset_update[j])
    r, z = reset_update[:n], reset_update[n:]
    for j in range(n):
        candidate[j] += r[j] * inner[j]
    rnn(MODRELU if cell == GORU else TANH, candidate, threshold)
    for j in range(n):
        h[j] = (one - z[j]) * candidate[j] + z[j] * s[j]


@jit
def gru_backward(
    cell: int, gates: Any, s: Any, d_h: Any, d_s: Any, d_threshold: Any, scratch: Any
) -> None:
    """Gates -> their gradient before the nonlinearities; adds to d_threshold.

    What s has past the gates is written to d_s.
    """
    wide_vectors()
    n = d_h.shape[0]
    one = gates.dtype.type(1)
    r, z, candidate, inner = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n : 4 * n]
    for j in range(n):
        d_s[j] = d_h[j] * z[j]
    for j in range(n):
        scratch[j] = d_h[j] * (one - z[j])
    for j in range(n):
        z_j = z[j]
        z[j] = d_h[j] * (s[j] - candidate[j]) * (z_j * (one - z_j))
    rnn_backward(MODRELU if cell == GORU else TANH, candidate, scratch, d_threshold)
    for j in range(n):
        r_j, inner_j = r[j], inner[j]
        inner[j] = candidate[j] * r_j
        r[j] = candidate[j] * inner_j * (r_j * (one - r_j))


@jit
def rnn(nonlinearity: int, z: Any, threshold: Any) -> None:
    """Write φ(z) over z."""
    wide_vectors()
    zero = z.dtype.type(0)
    if nonlinearity == TANH:
        for j in range(z.shape[0]):
            z[j] = tanh(z[j])
    elif nonlinearity == RELU:
        for j in range(z.shape[0]):
            z[j] = zero if z[j] < zero else z[j]
    else:
        for j in range(z.shape[0]):
            size = abs(z[j]) + threshold[j]
            size = zero if size < zero else size
            z[j] = size if z[j] > zero else (-size if z[j] < zero else zero * z[j])


@jit
def rnn_backward(nonlinearity: int, z: Any, d: Any, d_threshold: Any) -> None:
    """Write z's gradient over φ(z), from that of φ(z), ``d``; add to d_threshold."""
    wide_vectors()
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if nonlinearity == TANH:
        for j in range(z.shape[0]):
            z[j] = d[j] * (one - z[j] * z[j])
    elif nonlinearity == RELU:
        for j in range(z.shape[0]):
            z[j] = d[j] if z[j] > zero else zero
    else:  # modReLU is 0 only where its slope is
        for j in range(z.shape[0]):
            d_z = d[j] if z[j] != zero else zero
            d_threshold[j] += d_z if z[j] > zero else -d_z
            z[j] = d_z
