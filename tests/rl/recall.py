"""A world that only an agent with a memory can solve."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces


class Recall(gym.Env[Any, Any]):
    """A cue at the first step, some blank steps, then a choice: reward 1 for naming the cue.

    Observations: 0 is blank, 1 asks for the choice, 2 and above are cues. Actions before the
    choice do nothing. An agent that remembers nothing is right once in ``cues`` times.
    """

    def __init__(self, cues: int = 2, blanks: int = 8) -> None:
        self.cues = cues
        self.blanks = blanks
        self.observation_space = spaces.Discrete(2 + cues)
        self.action_space = spaces.Discrete(cues)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(self.cues))
        self.time = 0
        return 2 + self.cue, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        choosing = self.time == self.blanks + 1
        self.time += 1
        reward = float(choosing and int(action) == self.cue)
        return int(self.time == self.blanks + 1), reward, choosing, False, {}
