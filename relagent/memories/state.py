"""What a memory carries from step to step: a ``NamedTuple`` of batch-first tensors.

An empty row is all zeros in floating-point fields, ``False`` in Boolean ones and -1 in integer
ones, so that one rule can reset any memory. What is remembered may grow: such fields are
[B, L, ..], with L = 0 in an empty memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from relagent.memories.errors import MemoryInputError, MemoryOptionError

AnyState = tuple[Tensor, ...]
StateT = TypeVar("StateT", bound=AnyState)


def blank(like: Tensor) -> Tensor:
    """Return the scalar that fills an empty row: 0, ``False`` or, for integers, -1."""
    integer = not (like.dtype.is_floating_point or like.dtype == torch.bool)
    return torch.tensor(-1 if integer else 0, dtype=like.dtype, device=like.device)


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """Apply a function to every tensor of a state."""
    return make_state(state, map(function, state))


def make_state(like: StateT, parts: Iterable[Tensor]) -> StateT:
    """Return a state of the same type as another, made of these tensors."""
    make = getattr(type(like), "_make", type(like))  # a plain tuple has no names
    return cast(StateT, make(parts))


def detach_state(state: StateT) -> StateT:
    """Cut a state off from the graph that made it."""
    return map_state(torch.Tensor.detach, state)


def take_rows(state: StateT, rows: Tensor) -> StateT:
    """Return the state of some rows of the batch, by their numbers [R]."""
    return map_state(lambda tensor: tensor.index_select(0, rows), state)


class Field(NamedTuple):
    """What a field of a memory's state must be.

    Plain facts, no tensors: the first to ask may be a transformed call, whose tensors must not
    outlive it.
    """

    name: object
    """Of a NamedTuple's field; its number in a plain tuple."""
    shape: tuple[int, ...]
    """Without the batch."""
    kind: str
    """See :func:`_kind`."""
    grows: bool
    """Whether its second dimension is the number of remembered states."""


def layout_of(owner: str, empty: Any, growing: Sequence[str]) -> tuple[Field, ...]:
    """Return what the states of a memory must be.

    Args:
        owner: the memory's name.
        empty: its empty state, of one row.
        growing: its fields that grow with what is remembered.

    Raises:
        MemoryOptionError: the empty row is not what a reset leaves.
    """
    says = f"{owner}.initial_state(1)"
    if not isinstance(empty, tuple) or not all(
        isinstance(part, Tensor) and part.shape[:1] == (1,) for part in empty
    ):
        raise MemoryOptionError(f"{says} must be a NamedTuple of tensors, the batch first")
    names = list(getattr(empty, "_fields", range(len(empty))))
    for name, part in zip(names, empty, strict=True):
        if not (part == blank(part)).all():
            raise MemoryOptionError(
                f"{name} of {says} must be {blank(part).item()} everywhere, as a reset fills "
                "it so: let step() add what an episode is to begin with"
            )
        if name in growing and part.shape[1:2] != (0,):
            raise MemoryOptionError(
                f"{name} of {says} must be [1, 0, ..], not {list(part.shape)}: it is named in "
                "growing, and nothing is remembered yet"
            )
    if unknown := [name for name in growing if name not in names]:
        raise MemoryOptionError(f"{says} has no {', '.join(unknown)}, which growing names")
    return tuple(
        Field(name, tuple(part.shape[1:]), _kind(part), name in growing)
        for name, part in zip(names, empty, strict=True)
    )


def check_state(
    owner: str,
    layout: Sequence[Field],
    state: AnyState,
    batch: int,
    device: torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Check a state that is given to a memory.

    Args:
        owner: the memory's name.
        layout: what its states must be.
        state: what was given.
        batch: B, the rows that it must have.
        device: where it must be.
        dtype: of floating-point fields; ``None``: any.

    Raises:
        MemoryInputError: it does not fit.
    """
    advice = f"pass initial_state({batch}), or what unroll returned for this batch"
    if not isinstance(state, tuple) or len(state) != len(layout):
        raise MemoryInputError(
            f"the state of {owner} is a tuple of {len(layout)} tensors: {advice}"
        )
    lengths: dict[str, int] = {}
    for (name, shape, kind, grows), part in zip(layout, state, strict=True):
        if not isinstance(part, Tensor):
            raise MemoryInputError(
                f"{name} in the state of {owner} must be a tensor, not {type(part).__name__}: "
                f"{advice}"
            )
        if grows and part.dim() > 1:
            lengths[str(name)] = part.shape[1]
            shape = (part.shape[1], *shape[1:])
        wanted = str(dtype) if dtype and kind == _FLOATING else kind
        found = str(part.dtype) if dtype and part.is_floating_point() else _kind(part)
        fits = part.shape == (batch, *shape) and found == wanted
        if not fits or part.device != device:
            raise MemoryInputError(
                f"{name} in the state of {owner} must be {[batch, *shape]}, {wanted}, on {device}, "
                f"not {list(part.shape)}, {found}, on {part.device}: {advice}"
            )
    if len(set(lengths.values())) > 1:
        *some, last = lengths
        raise MemoryInputError(
            f"{', '.join(some)} and {last} in the state of {owner} must be equally long, not "
            f"{sorted(set(lengths.values()))}: pass what unroll returned"
        )


_FLOATING = "floating-point"


def _kind(tensor: Tensor) -> str:
    """Name what a field's dtype is, of whatever width."""
    if tensor.dtype.is_floating_point:
        return _FLOATING
    if tensor.dtype == torch.bool:
        return "Boolean"
    return "integer" if tensor.dtype.is_signed else "unsigned integer"  # which has no -1
