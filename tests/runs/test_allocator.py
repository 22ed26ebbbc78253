"""Freed memory stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import ctypes
from relagent.runs.allocator import keep_freed_memory

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]

kept = keep_freed_memory()
libc = ctypes.CDLL(None)
if not kept or not hasattr(libc, "mallinfo2"):
    print("elsewhere")
else:
    libc.mallinfo2.restype = Mallinfo2
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    before = libc.mallinfo2()
    pieces = [libc.malloc(2**23) for _ in range(8)]
    for piece in reversed(pieces):
        libc.free(piece)
    after = libc.mallinfo2()
    print(after.arena - before.arena, after.hblkhd - before.hblkhd)
"""


def test_freed_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    if done.stdout == "elsewhere\n":
        pytest.skip("this C library cannot be told, or asked")
    heap, mapped = map(int, done.stdout.split())
    assert heap >= 8 * 2**23  # what the pieces took, and it is still there
    assert mapped == 0
