"""What the loops on a GPU are made of: reading and writing blocks of vectors, and products.

Written in Triton: a name stands for a block of numbers, or for a block [ROWS] of pointers to where
each row's vector begins; numbers in capitals are known when a kernel is compiled. Vectors are
worked on in blocks of columns, and go through global memory between one operation and the next, so
that n has no limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import triton
import triton.language as tl

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def jit(function: FunctionT) -> FunctionT:
    """Compile a function that kernels call."""
    return cast(FunctionT, triton.jit(function))


def entry(function: FunctionT) -> FunctionT:
    """Compile a kernel, but not anew for sizes that change from call to call."""
    return cast(FunctionT, triton.jit(function, do_not_specialize=["T", "B", "L", "WIDTH"]))


@jit
def tanh(x: tl.tensor) -> Any:
    """Return the hyperbolic tangent, from an exponential that cannot overflow."""
    e = tl.exp(-2 * tl.abs(x))
    size = (1 - e) / (1 + e)
    return tl.where(x < 0, -size, size)


@jit
def fill(out: tl.tensor, value: tl.tensor, SIZE: tl.constexpr) -> None:
    """``out[:SIZE] = value``: the smallest kernel that there is."""
    tl.store(out + tl.arange(0, SIZE), value)


@jit
def load(vector: tl.tensor, column: tl.tensor) -> Any:
    """Return columns of each row's vector, [ROWS, C]."""
    return tl.load(vector[:, None] + column[None, :])


@jit
def store(vector: tl.tensor, column: tl.tensor, value: tl.tensor, mine: tl.tensor) -> None:
    """Write columns of each row's vector, for the rows that are this program's own."""
    tl.store(vector[:, None] + column[None, :], value, mask=mine[:, None])


@jit
def add_product(
    total: tl.tensor,
    vector: tl.tensor,
    matrix: tl.tensor,
    column: tl.tensor,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
) -> Any:
    """Return ``total + vector @ matrix[:, column]``.

    Args:
        total: [ROWS, C].
        vector: of DEPTH numbers.
        matrix: [DEPTH, WIDTH].
        column: [C].
        DEPTH: a multiple of D.
        WIDTH: of the matrix.
        D: terms at a time.
    """
    for begin in range(0, DEPTH, D):
        depth = begin + tl.arange(0, D)
        weights = tl.load(matrix + depth[:, None] * WIDTH + column[None, :])
        vectors = load(vector, depth)
        # "ieee": the default, TF32, rounds factors to 11 bits.
        total = tl.dot(vectors, weights, total, input_precision="ieee", out_dtype=total.dtype)
    return total
