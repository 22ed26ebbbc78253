"""Exploring starts: random actions open some of the training episodes."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from relagent.errors import RelagentError


class ExploringStartsError(RelagentError):
    """Exploring starts that cannot work."""


class ExploringStarts:
    """Opens an episode, with probability 1/2, with 1 to ``most`` random actions, drawn uniformly.

    An agent that is good at its small world is soon in few of its states only, and knows nothing
    of the others, nor of long histories; a larger world begins just there. Random openings (as in
    the exploring starts of Sutton & Barto 2018, section 5.3, and the random starts of Nair et al.
    2015) keep the whole world in view. The memory reads the opening like the rest of the episode;
    nothing is learned from its actions, which were not the agent's.

    Args:
        most: largest number of opening actions; 0 for none.
        action_space: whose actions are drawn; Discrete, unless ``most`` is 0.

    Raises:
        ExploringStartsError: a negative or broken number, or another kind of action.
    """

    def __init__(self, most: int, action_space: spaces.Space[object]) -> None:
        number: Any = most  # users may give anything
        if not isinstance(number, Integral) or most < 0:
            raise ExploringStartsError(
                f"exploring_starts={most} cannot work: use a whole number, 0 or more"
            )
        if most > 0 and not isinstance(action_space, spaces.Discrete):
            raise ExploringStartsError(
                f"exploring_starts={most} cannot work with actions from {action_space}: random "
                "openings need Discrete actions; use 0"
            )
        self.most = most
        self.actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else 0
        self.left = torch.zeros(0, dtype=torch.int64)
        """[E] random actions that an episode has left; -1 where it has had none at all."""

    def restart(self, n_envs: int) -> None:
        """All environments begin an episode."""
        self.left = self._draw(n_envs)

    def open(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Replace actions [E] where an opening goes on.

        Returns:
            The actions to take, and where they are the agent's own [E].
        """
        opening = self.left > 0
        if opening.any():
            drawn = torch.randint(self.actions, opening.shape)
            mask = opening.to(actions.device)
            actions = torch.where(mask, drawn.to(actions), actions)
            self.left = self.left - opening.long()
        return actions, ~opening.to(actions.device)

    def end(self, dones: Tensor) -> None:
        """Begin new episodes where ``dones`` [E] says that one ended."""
        if self.most and dones.any():
            self.left = torch.where(dones.cpu(), self._draw(len(dones)), self.left)

    @property
    def own(self) -> Tensor:
        """Where the running episode has had no opening, so that its score is the agent's: [E]."""
        return self.left < 0

    def _draw(self, n: int) -> Tensor:
        if not self.most:
            return torch.full((n,), -1)
        drawn = torch.randint(1, self.most + 1, (n,))
        return torch.where(torch.rand(n) < 0.5, drawn, -1)
