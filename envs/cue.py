"""A world that asks for nothing but memory, and shows how to make a world of one's own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]

DELAYS = (20, 50, 100, 200)
"""Of the worlds that are registered: ``relagent/Cue20-v0`` and so on."""


class Cue(gym.Env[Observation, np.int64]):
    """One of two cues is shown at the first step, and asked for ``delay`` steps later.

    In between nothing is seen, and no action does anything. The reward is 1 for the right answer,
    otherwise 0: guessing gives 0.5.

    Observations are three numbers, each 0 or 1: the first cue, the second one, the question.

    Args:
        delay: steps from the cue to the question, at least 1.

    Raises:
        ValueError: the delay is less than 1.
    """

    def __init__(self, delay: int) -> None:
        if delay < 1:
            raise ValueError(f"a delay of {delay} steps was asked for: choose 1 or more.")
        self.delay = delay
        self.observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a cue and show it."""
        super().reset(seed=seed)
        self._time = 0
        self._cue = int(self.np_random.integers(2))
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Let time pass; the action that follows the question is the answer."""
        answered = self._time == self.delay
        right = answered and int(action) == self._cue
        self._time += 1
        return self._look(), float(right), answered, False, {"is_success": right}

    def _look(self) -> Observation:
        seen = np.zeros(3, np.float32)
        if self._time == 0:
            seen[self._cue] = 1
        seen[2] = self._time == self.delay
        return seen


for _delay in DELAYS:
    gym.register(
        f"relagent/Cue{_delay}-v0",
        "relagent.envs.cue:Cue",
        max_episode_steps=_delay + 2,  # never reached: it says that every episode ends
        kwargs={"delay": _delay},
    )
