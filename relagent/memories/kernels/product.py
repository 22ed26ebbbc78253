"""A matrix product whose every element is one chain of multiply-adds in a fixed order.

A BLAS may round differently for another number of rows; here a row's result is the same bit for bit
whatever stands above and below it, and whether its terms come in one call or in several. The inner
tile is written in LLVM's own vectors (its accumulators have to stay in registers, and loops over
them do not get there), so it runs on any machine, at its own width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # type: ignore[import-untyped]  # has no types
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from relagent.memories.kernels.native import jit

_WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
VECTOR_BYTES = 64 if _WIDE else 32
VECTORS = 4 if _WIDE else 2
"""Tile of up to 6 rows by VECTORS vectors: as many accumulators as the registers hold."""
PANEL = 16
"""Columns of w that stand together, [M / PANEL, K, PANEL]: then a tile reads memory in order, and
its part of w stays in the first-level cache whatever M is."""


def panels(matrix: Tensor) -> Tensor:
    """Return a matrix [K, M] in panels, [M / PANEL, K, PANEL]; M is a multiple of PANEL."""
    depth, width = matrix.shape
    return matrix.reshape(depth, width // PANEL, PANEL).transpose(0, 1)


def _tile(rows: int, vectors: int) -> Callable[..., Any]:
    """Return the compiled ``out[r, v] += sum_k a[r, k] * w[k, v]`` of one tile.

    ``out`` and ``a`` are arrays of any shape; each comes with the offset of its first element and
    the distance between its rows, in elements. ``w`` is in panels and comes with its first column.
    """

    @intrinsic
    def tile(
        context: Any,
        out: Any,
        out_at: Any,
        out_stride: Any,
        a: Any,
        a_at: Any,
        a_stride: Any,
        w: Any,
        column: Any,
        depth: Any,
    ) -> Any:
        i = types.intp
        signature = types.void(out, i, i, a, i, i, w, i, i)
        return signature, lambda *arguments: _tile_code(rows, vectors, *arguments)

    return cast(Callable[..., Any], tile)


def _tile_code(
    rows: int, vectors: int, context: Any, builder: Any, signature: Any, args: Any
) -> Any:
    """Write the tile in LLVM's language: load the accumulators, one loop over k, store them.

    In words of Python, where ``vector(x, v)`` are the ``lanes`` elements from ``x[v * lanes]`` on::

        sums = {(r, v): vector(out[r], v) for r in range(rows) for v in range(vectors)}
        for k in range(depth):
            weights = [vector(w[k], v) for v in range(vectors)]
            for r, v in sums:
                sums[r, v] = fma(a[r, k], weights[v], sums[r, v])
        for r, v in sums:
            vector(out[r], v)[:] = sums[r, v]

    A loop in LLVM's language is two blocks: the values that change from turn to turn (k and the
    sums) enter it through a ``phi`` each, which takes one value from the block before the loop and
    another from the loop itself.
    """

    def data(array: int) -> Any:
        return context.make_array(signature.args[array])(context, builder, args[array]).data

    out, a, w = data(0), data(3), data(6)
    out_at, out_stride, a_at, a_stride, column, depth = (args[n] for n in (1, 2, 4, 5, 7, 8))
    number = context.get_data_type(signature.args[0].dtype)
    size = context.get_abi_sizeof(number)
    lanes = VECTOR_BYTES // size
    vector = ir.VectorType(number, lanes)
    name = f"llvm.fmuladd.v{lanes}f{8 * size}"
    declare: Any = cgutils.get_or_insert_function
    fma = declare(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    index = ir.IntType(64)
    undefined = ir.Constant(vector, ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

    def offset(at: Any, stride: Any, row: Any, vector_number: int = 0) -> Any:
        return builder.add(
            builder.add(at, builder.mul(stride, row)), ir.Constant(index, vector_number * lanes)
        )

    def address(base: Any, at: Any) -> Any:
        return builder.bitcast(builder.gep(base, [at]), vector.as_pointer())

    def load(pointer: Any) -> Any:
        value = builder.load(pointer)
        value.align = size
        return value

    places = [(r, v) for r in range(rows) for v in range(vectors)]
    targets = {
        (r, v): address(out, offset(out_at, out_stride, ir.Constant(index, r), v))
        for r, v in places
    }
    initial = {place: load(targets[place]) for place in places}

    # Column j stands in panel j // PANEL; `column` is a multiple of a vector's lanes.
    panel = ir.Constant(index, PANEL)
    starts = []
    for v in range(vectors):
        j = builder.add(column, ir.Constant(index, v * lanes))
        whole = builder.mul(builder.mul(builder.udiv(j, panel), depth), panel)
        starts.append(builder.gep(w, [builder.add(whole, builder.urem(j, panel))]))

    before = builder.block
    loop, after = builder.append_basic_block("terms"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", depth, ir.Constant(index, 0)), loop, after)

    builder.position_at_end(loop)
    k = builder.phi(index)
    k.add_incoming(ir.Constant(index, 0), before)
    sums = {place: builder.phi(vector) for place in places}
    weights = [load(address(starts[v], builder.mul(k, panel))) for v in range(vectors)]
    new = {}
    for r in range(rows):
        at = builder.add(offset(a_at, a_stride, ir.Constant(index, r)), k)
        scalar = builder.insert_element(
            undefined, builder.load(builder.gep(a, [at])), ir.Constant(ir.IntType(32), 0)
        )
        factor = builder.shuffle_vector(scalar, undefined, first_lane)
        for v in range(vectors):
            new[r, v] = builder.call(fma, [factor, weights[v], sums[r, v]])
    following = builder.add(k, ir.Constant(index, 1))
    k.add_incoming(following, loop)
    for place in places:
        sums[place].add_incoming(initial[place], before)
        sums[place].add_incoming(new[place], loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

    builder.position_at_end(after)
    results = {place: builder.phi(vector) for place in places}
    for place in places:
        results[place].add_incoming(initial[place], before)
        results[place].add_incoming(new[place], loop)
    for place in places:
        builder.store(results[place], targets[place]).align = size
    return context.get_dummy_value()


def _panel(vectors: int) -> Callable[..., None]:
    """Return the product with one panel of w, ``vectors`` wide, in tiles of 4 rows.

    Fewer rows cannot keep the multipliers busy: 4 take no longer than 1 or 2. So the last 6 or
    fewer are one tile.
    """
    one, two, three, four, five, six = (_tile(rows, vectors) for rows in range(1, 7))

    @jit
    def panel(
        out: Any, out_at: int, out_stride: int,
        a: Any, a_at: int, a_stride: int,
        w: Any, column: int, rows: int,
    ) -> None:  # fmt: skip
        depth = w.shape[1]
        out_at += column
        while rows > 6:
            four(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
            out_at += 4 * out_stride
            a_at += 4 * a_stride
            rows -= 4
        if rows == 6:
            six(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
        elif rows == 5:
            five(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
        elif rows == 4:
            four(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
        elif rows == 3:
            three(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
        elif rows == 2:
            two(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)
        elif rows == 1:
            one(out, out_at, out_stride, a, a_at, a_stride, w, column, depth)

    return panel


_wide_panel, _slim_panel = _panel(VECTORS), _panel(1)


@jit
def add_product(
    out: Any, out_at: int, out_stride: int, a: Any, a_at: int, a_stride: int, w: Any, rows: int
) -> None:
    """``out[:rows, :M] += a[:rows, :K] @ w`` for contiguous arrays and w in panels.

    ``out`` and ``a`` may have any shape: they are read as matrices whose first element stands at
    ``*_at`` and whose rows are ``*_stride`` elements apart.
    """
    lanes = VECTOR_BYTES // w.itemsize
    width = w.shape[0] * PANEL
    column = 0
    while column + VECTORS * lanes <= width:
        _wide_panel(out, out_at, out_stride, a, a_at, a_stride, w, column, rows)
        column += VECTORS * lanes
    while column < width:
        _slim_panel(out, out_at, out_stride, a, a_at, a_stride, w, column, rows)
        column += lanes
