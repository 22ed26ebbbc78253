"""Compiling kernels with numba, and running them over the rows of a batch.

Kernels are compiled for one thread and release the GIL; rows are shared out over plain Python
threads. A row's arithmetic knows nothing of its neighbours, so neither the batch nor the number of
threads can change a bit of it. No second OpenMP pool competes with torch's, a fork is harmless, and
several Python threads may run kernels at once.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import torch
from numba import types
from numba.core import event
from numba.extending import intrinsic

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_njit: Any = numba.njit  # its types change from version to version

OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract"}, "nogil": True}
"""Division as in IEEE 754 and a·b + c as one rounding; nothing else may change a value."""

_SOURCES = ["native", "transcendental", "product", "attention", "records", "cells", "recurrent"]
VERSION = zlib.crc32(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SOURCES)
)
"""Digest of the sources. numba's cache looks at the entry function's own file alone, so an entry
takes this as its last default argument: then a change in any file makes a new entry."""


def jit(function: FunctionT) -> FunctionT:
    """Compile a function that other compiled functions call."""
    return cast(FunctionT, _njit(function, **OPTIONS))


def jit_sums(function: FunctionT) -> FunctionT:
    """:func:`jit`, with freedom to reorder sums: for dot products, which vectorise only so."""
    options = {**OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}
    return cast(FunctionT, _njit(function, **options))


def entry(function: FunctionT) -> FunctionT:
    """Compile a function that Python calls; the machine code is kept on disk if it can be."""
    try:
        compiled = _njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # no folder that could hold the cache is writable
        compiled = _njit(function, **OPTIONS)
    return cast(FunctionT, compiled)


class _Announcement(event.Listener):
    """Says once what the first call waits for, and only if something really is compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self.said and module.startswith("relagent."):
            self.said = True
            print("relagent: compiling kernels, once (10-30 s)", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        pass


def _borrowed(_: Any, value: Any) -> Any:
    def borrow(context: Any, builder: Any, kind: Any, argument: Any) -> Any:
        if isinstance(kind, types.BaseTuple):
            kinds: Any = kind
            parts = [
                borrow(context, builder, part, builder.extract_value(argument, i))
                for i, part in enumerate(kinds)
            ]
            return context.make_tuple(builder, kind, parts)
        view = context.make_array(kind)(context, builder, argument)
        view.meminfo = view.meminfo.type(None)
        return view._getvalue()

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return borrow(context, builder, signature.args[0], arguments[0])

    return value(value), code


borrowed: Any = intrinsic(_borrowed)
"""Return an array, or all arrays of a tuple, without a reference count: for as long as a caller
holds the originals.

Otherwise every slice of an array costs two atomic operations, as much as the arithmetic on a row.
"""


def _wide_vectors(context: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite's own add() refuses attributes that it does not know.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), code


wide_vectors: Any = intrinsic(_wide_vectors)
"""Ask LLVM for 512-bit vectors in the function that calls this, where the machine has them.

LLVM prefers 256 bits, lest a few wide instructions slow all others down; these loops are nothing
but wide instructions, and gain 12-15 % of their time."""

_register: Any = event.register
_register("numba:compile", _Announcement())

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """Threads do not survive a fork; the child starts its own."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def as_array(tensor: Any) -> Any:
    """Return a tensor on the CPU as kernels take it; what is written there is written here."""
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def over_rows(kernel: Callable[..., None], rows: int, work: float, *arguments: Any) -> None:
    """Run ``kernel(begin, end, *arguments)`` over all rows, on ``torch.get_num_threads()`` threads.

    Args:
        kernel: a compiled function that writes its results into its arguments.
        rows: number of rows.
        work: multiplications and additions in all; little work stays on this thread.
        arguments: passed on.
    """
    global _pool
    threads = min(torch.get_num_threads(), rows) if work > _WORTH_A_THREAD else 1
    if threads == 1:
        kernel(0, rows, *arguments)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, threads), "relagent-kernel")
    ends = [rows * (thread + 1) // threads for thread in range(threads)]
    others = [_pool.submit(kernel, begin, end, *arguments) for begin, end in pairwise(ends)]
    kernel(0, ends[0], *arguments)
    for other in others:
        other.result()


_WORTH_A_THREAD = 6e7
"""Handing rows to another thread takes 0.1-0.3 ms, in which one thread does this much."""
