"""What a memory is: a pure function of an input and an explicit state.

A memory is a torch module with three methods::

    state    = memory.initial_state(batch)
    y, state = memory.step(x, state)                      # x [B, F]    -> y [B, H]
    y, state = memory.unroll(x, state, episode_starts)    # x [T, B, F] -> y [T, B, H]

The state is a ``NamedTuple`` of batch-first tensors and holds *everything* that is carried from one
step to the next; nothing hides on the module. An empty row is all zeros in floating-point fields,
``False`` in Boolean ones and -1 in integer ones, so that one rule can reset any memory. A dimension
that an empty memory has 0 of may grow with what is remembered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from relagent.errors import RelagentError
from relagent.memories import kernels

StateT = TypeVar("StateT", bound=tuple[Tensor, ...])
AnyState = tuple[Tensor, ...]


class MemoryInputError(RelagentError):
    """A tensor that does not fit the memory it was given to."""


class MemoryOptionError(RelagentError):
    """A memory, or an option of one, that does not exist or cannot work."""


class Attention(NamedTuple):
    """What a memory looked at, by slot; an empty slot has weight 0, relevance 0 and age -1.

    From one step the shapes are [B, K] and [B]; from :meth:`Memory.trace`, [T, B, K] and [T, B].
    """

    weights: Tensor
    """[.., B, K] attention over what is remembered, adds up to 1."""
    relevance: Tensor
    """[.., B, K] running relevance score: the attention earned so far, with screening only that
    earned in the short-term buffer."""
    ages: Tensor
    """[.., B, K] steps since the remembered state was made: 0 for the state of this very step."""
    admitted: Tensor
    """[.., B] whether a state moved from the short-term buffer into the relevant set."""
    evicted: Tensor
    """[.., B] age of the state that was forgotten at this step, -1 for none."""


class Memory(nn.Module, ABC, Generic[StateT]):
    """Base class of every memory.

    Args:
        input_size: F, the number of input features.
        hidden_size: H, the number of output features.

    Raises:
        MemoryOptionError: a size is no positive whole number.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        check_whole(input_size=input_size, hidden_size=hidden_size)
        if input_size < 1 or hidden_size < 1:
            raise MemoryOptionError(
                f"a memory needs sizes of at least 1, not input_size={input_size}, "
                f"hidden_size={hidden_size}: pass positive sizes"
            )
        self.input_size = int(input_size)
        self.hidden_size = int(hidden_size)
        # Goes where the module goes: a memory may have no parameters.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._empty: StateT | None = None  # one empty row, to compare states with

    @abstractmethod
    def initial_state(self, batch: int) -> StateT:
        """Return the empty memory of ``batch`` rows, on the parameters' device and dtype."""

    @abstractmethod
    def step(self, x: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """Read one input and return the output and the next state.

        This is the inner loop, and checks nothing: tensors that do not fit may be broadcast.
        :meth:`unroll` checks them.

        Args:
            x: [B, F].
            state: the state before this step, batch first.
        """

    def unroll(
        self, x: Tensor, state: StateT, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """Read a sequence; rows are reset, one by one, where an episode starts.

        Args:
            x: [T, B, F].
            state: the state before the first step, batch first.
            episode_starts: [T, B], true where x[t, b] is the first input of an episode; the row's
                state is emptied before that step. ``None``: nowhere.

        Returns:
            The outputs [T, B, H], which must not be written into while a gradient is to come, and
            the state after the last step.

        Raises:
            MemoryInputError: see :meth:`check_sequence`.
            MemoryOptionError: this kind of memory breaks the rules above: its empty rows are not
                what a reset leaves, or a step returns something else.
        """
        state, starts = self.check_sequence(x, state, episode_starts)
        # A method that was replaced on this very object is not what a kernel computes.
        replaced = any(
            callable(attribute) and hasattr(type(self), name) and not hasattr(nn.Module, name)
            for name, attribute in vars(self).items()
        )
        kernel = None if replaced else kernels.select(type(self), x)
        if kernel is None:
            return self.unroll_definition(x, state, starts)
        return cast("tuple[Tensor, StateT]", kernel(self, x, state, starts))

    def forward(
        self, x: Tensor, state: StateT, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """:meth:`unroll`, as a module is called."""
        return self.unroll(x, state, episode_starts)

    def unroll_definition(
        self, x: Tensor, state: StateT, episode_starts: Tensor
    ) -> tuple[Tensor, StateT]:
        """:meth:`unroll` by its definition: reset, step, reset, step, ..."""
        outputs: list[Tensor] = []
        for x_t, starts_t in zip(x, episode_starts, strict=True):
            made = self.step(x_t, self.reset(state, starts_t))
            if not outputs:
                self._check_step(made, x.shape[1])
            y, state = made
            outputs.append(y)
        return torch.stack(outputs), state

    def reset(self, state: StateT, episode_starts: Tensor) -> StateT:
        """Empty the rows where an episode starts, by selection: what was there leaves no trace.

        As :meth:`step`, it checks nothing.

        Args:
            state: any state of this memory.
            episode_starts: [B], true where a row is to be emptied.
        """
        starts = episode_starts.bool()
        if not starts.any():
            return state

        def select(old: Tensor) -> Tensor:
            mask = starts.view(-1, *[1] * (old.dim() - 1))
            return torch.where(mask, blank(old), old)

        return map_state(select, state)

    def trace(
        self, x: Tensor, state: StateT, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT, Attention]:
        """:meth:`unroll`, and what the memory looked at. Only attentive memories can tell.

        Raises:
            MemoryOptionError: this memory cannot.
        """
        raise MemoryOptionError(
            f"{type(self).__name__} cannot tell what it attended to: use a memory that can, such "
            "as rel or mem"
        )

    def forget(self, state: StateT) -> StateT:
        """Clear what is remembered for attention; what the recurrence reads next stays.

        So the next window of a long text begins. A plain recurrence remembers nothing beside it.
        """
        return state

    def orthogonal_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of a rotation, which want a smaller learning rate; mostly none."""
        return []

    def check_sequence(
        self, x: Tensor, state: StateT, episode_starts: Tensor | None = None
    ) -> tuple[StateT, Tensor]:
        """Check what :meth:`unroll` takes.

        Returns:
            The state, of this memory's type, where it was another tuple; and ``episode_starts`` as
            Booleans [T, B], false everywhere for ``None``.

        Raises:
            MemoryInputError: a shape, a type or a device does not fit.
        """
        if not isinstance(x, Tensor):
            raise MemoryInputError(
                f"{type(self).__name__} reads a tensor, not {type(x).__name__}: torch.as_tensor "
                "makes one"
            )
        if x.dim() != 3 or x.shape[2] != self.input_size or x.shape[0] < 1:
            raise MemoryInputError(
                f"{type(self).__name__} reads [T, B, {self.input_size}] with T of at least 1, "
                f"not {list(x.shape)}: put time first, then the batch"
            )
        exact = self._exact_type(x)
        if exact is not None and x.dtype != exact:
            raise MemoryInputError(
                f"{type(self).__name__} has parameters of {exact} and reads the same, not "
                f"{x.dtype}: convert one of the two with .to(...)"
            )
        state = self._checked_state(state, x)
        if episode_starts is None:
            return state, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        try:
            starts = torch.as_tensor(episode_starts, device=x.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise MemoryInputError(f"episode_starts cannot be made a tensor: {error}") from error
        if starts.shape != x.shape[:2]:
            raise MemoryInputError(
                f"episode_starts must be {list(x.shape[:2])} like the input's time and batch, "
                f"not {list(starts.shape)}"
            )
        return state, starts.bool()

    def _checked_state(self, state: StateT, x: Tensor) -> StateT:
        if self._empty is None:
            self._empty = self._checked_empty()
        empty, batch, exact = self._empty, x.shape[1], self._exact_type(x)
        advice = f"pass initial_state({batch}), or what unroll returned for this batch"
        if not isinstance(state, tuple) or len(state) != len(empty):
            raise MemoryInputError(
                f"the state of {type(self).__name__} is a tuple of {len(empty)} tensors: {advice}"
            )
        for name, part, like in zip(_names(empty), state, empty, strict=True):
            wanted = [batch, *like.shape[1:]]
            if not isinstance(part, Tensor):
                raise MemoryInputError(
                    f"{name} in the state of {type(self).__name__} must be a tensor, not "
                    f"{type(part).__name__}: {advice}"
                )
            fits = part.dim() == len(wanted) and all(
                size == want or (want == 0 and axis > 0)
                for axis, (size, want) in enumerate(zip(part.shape, wanted, strict=True))
            )
            kind = str(exact) if exact and like.is_floating_point() else _kind(like)
            found = str(part.dtype) if exact and part.is_floating_point() else _kind(part)
            if not fits or part.device != x.device or found != kind:
                raise MemoryInputError(
                    f"{name} in the state of {type(self).__name__} must be {wanted}, {kind}, on "
                    f"{x.device}, not {list(part.shape)}, {found}, on {part.device}: {advice}"
                )
        return make_state(empty, state)

    def _checked_empty(self) -> StateT:
        """One empty row, if it is what a reset leaves."""
        empty = self.initial_state(1)
        says = f"{type(self).__name__}.initial_state(1)"
        if not isinstance(empty, tuple) or not all(
            isinstance(part, Tensor) and part.shape[:1] == (1,) for part in empty
        ):
            raise MemoryOptionError(f"{says} must be a NamedTuple of tensors, the batch first")
        for name, part in zip(_names(empty), empty, strict=True):
            if not (part == blank(part)).all():
                raise MemoryOptionError(
                    f"{name} of {says} must be {blank(part).item()} everywhere, as a reset fills "
                    "it so: let step() add what an episode is to begin with"
                )
        return empty

    def _check_step(self, made: Any, batch: int) -> None:
        """Check the shape of what a step returned."""
        shape = (batch, self.hidden_size)
        if not (
            isinstance(made, tuple)
            and len(made) == 2
            and isinstance(made[0], Tensor)
            and made[0].shape == shape
            and isinstance(made[1], tuple)
        ):
            raise MemoryOptionError(
                f"{type(self).__name__}.step must return its output, a tensor {list(shape)}, and "
                "the next state, a NamedTuple"
            )

    def _exact_type(self, x: Tensor) -> torch.dtype | None:
        """Return the floating-point type of all tensors; ``None`` where autocast mixes them."""
        dtype, device = self._like.dtype, x.device.type
        mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return dtype if dtype.is_floating_point and not mixed else None

    def _check_lengths(self, **parts: Tensor) -> None:
        """Check that parts of a state [B, L, ..] remember equally much.

        Raises:
            MemoryInputError: they do not.
        """
        lengths = {part.shape[1] for part in parts.values()}
        if len(lengths) > 1:
            *some, last = parts
            raise MemoryInputError(
                f"{', '.join(some)} and {last} in the state of {type(self).__name__} must be "
                f"equally long, not {sorted(lengths)}: pass what unroll returned"
            )

    @classmethod
    def check_hidden_size(cls, hidden_size: int) -> None:
        """Raise MemoryOptionError where a memory of this kind cannot have so many units."""

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros on the parameters' device and of their dtype, for :meth:`initial_state`."""
        like = self._like
        return torch.zeros(*shape, device=like.device, dtype=like.dtype)

    @property
    def _like(self) -> Tensor:
        """A tensor on the parameters' device and of their dtype."""
        return next(self.parameters(), cast(Tensor, self._anchor))


def check_whole(**sizes: Any) -> None:
    """Check that options are whole numbers.

    Raises:
        MemoryOptionError: one is not; its name and value are told.
    """
    for name, value in sizes.items():
        if type(value) is bool or not isinstance(value, Integral):
            raise MemoryOptionError(f"{name}={value!r} cannot work: pass a whole number")


def _names(state: AnyState) -> Iterable[object]:
    """The fields of a state; a plain tuple has numbers."""
    return getattr(state, "_fields", range(len(state)))


def _kind(tensor: Tensor) -> str:
    """Name what a field's dtype is, of whatever width."""
    if tensor.dtype.is_floating_point:
        return "floating-point"
    return "Boolean" if tensor.dtype == torch.bool else "integer"


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
