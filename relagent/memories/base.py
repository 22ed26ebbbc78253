"""What a memory is: a pure function of an input and an explicit state.

A memory is a torch module with three methods::

    state    = memory.initial_state(batch)
    y, state = memory.step(x, state)                      # x [B, F]    -> y [B, H]
    y, state = memory.unroll(x, state, episode_starts)    # x [T, B, F] -> y [T, B, H]

The state is a ``NamedTuple`` of batch-first tensors and holds *everything* that is carried from one
step to the next; nothing hides on the module. An empty row is all zeros in floating-point fields,
``False`` in Boolean ones and -1 in integer ones, so that one rule can reset any memory. What is
remembered may grow: fields named in ``growing`` are [B, L, ..], with L = 0 in an empty memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

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


class _Field(NamedTuple):
    """What a field of a memory's state must be."""

    name: object
    """Of a NamedTuple's field; its number in a plain tuple."""
    shape: tuple[int, ...]
    """Without the batch."""
    kind: str
    """See :func:`_kind`."""


class Memory(nn.Module, ABC, Generic[StateT]):
    """Base class of every memory.

    Args:
        input_size: F, the number of input features.
        hidden_size: H, the number of output features.

    Attributes:
        growing: the fields of the state whose second dimension L is the number of remembered
            states; all of them are equally long.

    Raises:
        MemoryOptionError: a size is no positive whole number.
    """

    growing: ClassVar[tuple[str, ...]] = ()

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
        self._layout: tuple[_Field, ...] = ()  # of the state; known once it was asked for

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
            state: the state before this step, batch first, of this memory's own type.

        Returns:
            The output [B, H], and the state after this step.
        """

    def unroll(
        self, x: Tensor, state: StateT | None = None, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """Read a sequence; rows are reset, one by one, where an episode starts.

        Args:
            x: [T, B, F].
            state: the state before the first step, batch first; a plain tuple of its tensors does
                as well. ``None``: empty.
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
        self, x: Tensor, state: StateT | None = None, episode_starts: Tensor | None = None
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
        self, x: Tensor, state: StateT | None = None, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, StateT, Attention]:
        """:meth:`unroll`, and what the memory looked at. Only attentive memories can tell.

        Takes, and refuses, what :meth:`unroll` does.

        Returns:
            The outputs [T, B, H], the state after the last step, and the attention, [T, B, K] and
            [T, B].

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
        self, x: Tensor, state: StateT | None = None, episode_starts: Tensor | None = None
    ) -> tuple[StateT, Tensor]:
        """Check what :meth:`unroll` takes.

        Returns:
            The state, of this memory's type, where it was another tuple or ``None``; and
            ``episode_starts`` as Booleans [T, B], false everywhere for ``None``. They are a copy:
            the caller may write into its own before the gradient is asked for.

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
        given: AnyState = self.initial_state(x.shape[1]) if state is None else state
        state = self._checked_state(given, x)
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
        return state, starts.to(torch.bool, copy=True)

    def _checked_state(self, state: AnyState, x: Tensor) -> StateT:
        """Return the state, of this memory's type, if it fits."""
        self._layout = self._layout or self._checked_layout()
        batch, exact = x.shape[1], self._exact_type(x)
        advice = f"pass initial_state({batch}), or what unroll returned for this batch"
        if not isinstance(state, tuple) or len(state) != len(self._layout):
            raise MemoryInputError(
                f"the state of {type(self).__name__} is a tuple of {len(self._layout)} tensors: "
                f"{advice}"
            )
        lengths: dict[object, int] = {}
        for (name, shape, kind), part in zip(self._layout, state, strict=True):
            if not isinstance(part, Tensor):
                raise MemoryInputError(
                    f"{name} in the state of {type(self).__name__} must be a tensor, not "
                    f"{type(part).__name__}: {advice}"
                )
            if name in self.growing and part.dim() > 1:
                lengths[name] = part.shape[1]
                shape = (part.shape[1], *shape[1:])
            wanted = str(exact) if exact and kind == FLOATING else kind
            found = str(part.dtype) if exact and part.is_floating_point() else _kind(part)
            fits = part.shape == (batch, *shape) and found == wanted
            if not fits or part.device != x.device:
                raise MemoryInputError(
                    f"{name} in the state of {type(self).__name__} must be {[batch, *shape]}, "
                    f"{wanted}, on {x.device}, not {list(part.shape)}, {found}, on {part.device}: "
                    f"{advice}"
                )
        if len(set(lengths.values())) > 1:
            *some, last = map(str, lengths)
            raise MemoryInputError(
                f"{', '.join(some)} and {last} in the state of {type(self).__name__} must be "
                f"equally long, not {sorted(set(lengths.values()))}: pass what unroll returned"
            )
        names = tuple(field.name for field in self._layout)
        known = getattr(state, "_fields", None) == names
        return cast(StateT, state) if known else make_state(self.initial_state(0), state)

    def _checked_layout(self) -> tuple[_Field, ...]:
        """Return what a state must be, if an empty row is what a reset leaves.

        Plain facts, no tensors: the first to ask may be a transformed call, whose tensors must not
        outlive it.
        """
        empty = self.initial_state(1)
        says = f"{type(self).__name__}.initial_state(1)"
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
            if name in self.growing and part.shape[1:2] != (0,):
                raise MemoryOptionError(
                    f"{name} of {says} must be [1, 0, ..], not {list(part.shape)}: it is named in "
                    "growing, and nothing is remembered yet"
                )
        if unknown := [name for name in self.growing if name not in names]:
            raise MemoryOptionError(f"{says} has no {', '.join(unknown)}, which growing names")
        return tuple(
            _Field(name, tuple(part.shape[1:]), _kind(part))
            for name, part in zip(names, empty, strict=True)
        )

    def without_slots(self, state: StateT, used: Tensor) -> StateT:
        """Return the state without the remembered states [L] that no row uses any more."""
        if used.all():
            return state
        fields = cast(Any, state)
        return cast(
            StateT,
            fields._replace(**{name: getattr(fields, name)[:, used] for name in self.growing}),
        )

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


FLOATING = "floating-point"


def _kind(tensor: Tensor) -> str:
    """Name what a field's dtype is, of whatever width."""
    if tensor.dtype.is_floating_point:
        return FLOATING
    if tensor.dtype == torch.bool:
        return "Boolean"
    return "integer" if tensor.dtype.is_signed else "unsigned integer"  # which has no -1


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
