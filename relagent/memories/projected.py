"""Memories whose input enters through one linear map, which serves a whole sequence at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

import torch
from torch import Tensor

from relagent.memories.base import Memory
from relagent.memories.state import StateT


class ProjectedMemory(Memory[StateT], Generic[StateT]):
    """A memory that is a linear map of the input, then a recurrence.

        p_t = W x_t + b                              all of a sequence in one product
        y_t, state_t = advance(p_t, state_{t-1}, R)  step by step

    R, the recurrent matrix, is asked for once per sequence: it may cost something to make.
    """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return p = W x + b [.., P] of the inputs x [.., F]."""

    @abstractmethod
    def recurrent_matrix(self) -> Tensor:
        """Return R, a function of the parameters alone."""

    @abstractmethod
    def advance(self, p: Tensor, state: StateT, R: Tensor) -> tuple[Tensor, StateT]:
        """:meth:`step` from the projected input p [B, P]."""

    def step(self, x: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """See :meth:`Memory.step`."""
        return self.advance(self.project(x), state, self.recurrent_matrix())

    def unroll_definition(
        self, x: Tensor, state: StateT, episode_starts: Tensor
    ) -> tuple[Tensor, StateT]:
        """See :meth:`Memory.unroll_definition`."""
        R = self.recurrent_matrix()
        outputs = []
        for p_t, starts_t in zip(self.project(x), episode_starts, strict=True):
            y, state = self.advance(p_t, self.reset(state, starts_t), R)
            outputs.append(y)
        return torch.stack(outputs), state
