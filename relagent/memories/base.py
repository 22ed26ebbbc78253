"""What a memory is: a pure function of an input and an explicit state.

A memory is a torch module with three methods::

    state    = memory.initial_state(batch)
    y, state = memory.step(x, state)                      # x [B, F]    -> y [B, H]
    y, state = memory.unroll(x, state, episode_starts)    # x [T, B, F] -> y [T, B, H]

The state is a ``NamedTuple`` of batch-first tensors (:mod:`~relagent.memories.state`) and holds
*everything* that is carried from one step to the next; nothing hides on the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, NamedTuple, cast

import torch
from torch import Tensor, nn

from relagent.memories import kernels
from relagent.memories.errors import MemoryInputError, MemoryOptionError, check_whole
from relagent.memories.state import (
    AnyState,
    Field,
    StateT,
    blank,
    check_state,
    layout_of,
    make_state,
    map_state,
)


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

    Attributes:
        growing: the fields of the state whose second dimension L is the number of remembered
            states: 0 in an empty memory, and the same for all of them.

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
        self._layout: tuple[Field, ...] = ()  # of the state; known once it was asked for

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
            MemoryOptionError: the empty rows of this kind of memory are not what a reset leaves, or
                its step returns something else.
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

        This begins the next window of a long text. A plain recurrence has nothing to clear.
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
        name = type(self).__name__
        self._layout = self._layout or layout_of(name, self.initial_state(1), self.growing)
        check_state(name, self._layout, state, x.shape[1], x.device, self._exact_type(x))
        known = getattr(state, "_fields", None) == tuple(field.name for field in self._layout)
        return cast(StateT, state) if known else make_state(self.initial_state(0), state)

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
