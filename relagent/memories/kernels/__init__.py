"""Fused kernels: second implementations of the memories' ``unroll``, equal to the definition.

A kernel is registered for one exact class (a subclass may have changed the function) and one kind
of device. :func:`select` finds it; :func:`disable` switches all kernels off, for a comparison or a
doubt, as does ``RELAGENT_KERNELS=0`` in the environment.

- :mod:`~relagent.memories.kernels.unroll`: a memory's ``unroll`` by a backend.
- :mod:`~relagent.memories.kernels.sequence`: the autograd function around the loops of any backend.
- On the CPU: :mod:`~relagent.memories.kernels.cpu`, whose loops over time are in
  :mod:`~relagent.memories.kernels.recurrent` and :mod:`~relagent.memories.kernels.sab`. They are
  made of :mod:`~relagent.memories.kernels.cells`, :mod:`~relagent.memories.kernels.attention`,
  :mod:`~relagent.memories.kernels.product` and :mod:`~relagent.memories.kernels.transcendental`,
  exchange the tuples of :mod:`~relagent.memories.kernels.records`, and are compiled by
  :mod:`~relagent.memories.kernels.native`.
- On a GPU: :mod:`~relagent.memories.kernels.cuda`, whose loops over time are in
  :mod:`~relagent.memories.kernels.triton_recurrent`. They are made of
  :mod:`~relagent.memories.kernels.triton_cells`,
  :mod:`~relagent.memories.kernels.triton_attention`,
  :mod:`~relagent.memories.kernels.triton_screening` and
  :mod:`~relagent.memories.kernels.triton_parts`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Kernel = Callable[[Any, Tensor, Any, Tensor], tuple[Tensor, Any]]
"""(memory, x [T, B, F], state, episode_starts [T, B] bool) -> (y [T, B, H], state)."""

_modules: dict[str, str] = {
    "cpu": "relagent.memories.kernels.cpu",
    "cuda": "relagent.memories.kernels.cuda",
}
"""Where the kernels of a kind of device are; imported, and so registered, when first needed."""

_registered: dict[tuple[str, str], Kernel] = {}
_opaque: dict[Any, Any] = {}
_layouts: ContextVar[dict[Any, Any] | None] = ContextVar("layouts", default=None)
_disabled = int(os.environ.get("RELAGENT_KERNELS", "1") == "0")
"""How many have switched kernels off; they come and go in any order."""


def register(memory_name: str, device_type: str, kernel: Kernel) -> None:
    """Make ``kernel`` the ``unroll`` of the class of that qualified name on that device type."""
    _registered[memory_name, device_type] = kernel


def select(memory: type, x: Tensor) -> Kernel | None:
    """Return the kernel for this exact class on the input's device, or ``None``."""
    if not enabled():
        return None
    device = x.device.type
    if (module := _modules.get(device)) is not None:
        try:
            _untraced(import_module)(module)
        except ImportError as error:
            warnings.warn(
                f"there are no fused kernels on {device} ({error}): memories run by their "
                "definitions, ten times slower",
                stacklevel=2,
            )
        _modules.pop(device, None)
    kernel = _registered.get((f"{memory.__module__}.{memory.__qualname__}", device))
    return kernel and _untraced(kernel)


def _untraced(function: FunctionT) -> FunctionT:
    """Return the function so that ``torch.compile`` does not look into it: it is compiled already.

    Asking costs seconds in a process that has not loaded that compiler, and has no need to ask.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _opaque:
        _opaque[function] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # torch's
    return cast(FunctionT, _opaque[function])


def _transformed() -> bool:
    """Whether calls are traced, or transformed by ``torch.func`` or forward-mode differentiation.

    None of these can see what a kernel does.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
    )


def enabled() -> bool:
    """Whether kernels may be used here and now: not where calls are traced or transformed."""
    return not (_disabled or _transformed())


@contextmanager
def disable() -> Iterator[None]:
    """Run the pure definitions inside the ``with`` block, whatever kernels there are.

    It holds for the whole process, other threads included.
    """
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1


@contextmanager
def constant_weights(known: dict[Any, Any]) -> Iterator[None]:
    """Promise that no weights change while ``known`` is in use: kernels lay them out only once.

    Nor may anybody write into a state: of the last one the keys are kept. It pays where sequences
    are short, as in acting. The promise is this thread's alone.

    Args:
        known: empty at first; what was laid out is kept here for the next time.
    """
    token = _layouts.set(known)
    try:
        yield
    finally:
        _layouts.reset(token)


def layouts() -> dict[Any, Any] | None:
    """Return what was laid out under the promise of constant weights, ``None`` without it."""
    return _layouts.get()
