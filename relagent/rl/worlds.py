"""Worlds whose present can be made again: the seed they started from and every action since."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.errors import RelagentError


class ReplayError(RelagentError):
    """Worlds that do not come out as they were."""


class ReplayableVecEnv(VecEnvWrapper):
    """Record the actions since the last :meth:`restart`, for worlds that cannot be saved.

    Neither EnvPool nor most Python environments can store their state, but all are deterministic
    given their seeds: stepping them again with the recorded actions leads back to the same state.
    A restart now and then keeps the record short.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        actions = self.action_space
        small = isinstance(actions, spaces.Discrete) and actions.start >= 0 and actions.n <= 256
        self._dtype = np.dtype(np.uint8) if small else np.dtype(actions.dtype)
        self._seed = 0
        self._record: list[np.ndarray] = []

    def restart(self, seed: int) -> VecEnvObs:
        """Begin new episodes everywhere, from this seed, and a new record."""
        self._seed = seed
        self._record = []
        self.venv.seed(seed)
        return self.venv.reset()

    def reset(self) -> VecEnvObs:
        """Restart from the seed of the last :meth:`restart`."""
        return self.restart(self._seed)

    def step_async(self, actions: np.ndarray) -> None:
        """Record the actions and take them."""
        self._record.append(np.array(actions, dtype=self._dtype))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """See ``VecEnv``."""
        return self.venv.step_wait()

    def snapshot(self) -> dict[str, Any]:
        """Return all that :meth:`replay` needs: the seed and the actions [steps, n_envs, ...]."""
        shape = (0, self.num_envs, *(self.action_space.shape or ()))
        actions = np.stack(self._record) if self._record else np.zeros(shape, self._dtype)
        return {"seed": self._seed, "actions": actions}

    def replay(self, snapshot: dict[str, Any]) -> VecEnvObs:
        """Make the present of a :meth:`snapshot` again and return its observations.

        Raises:
            ReplayError: the snapshot is of another number of environments.
        """
        actions = np.asarray(snapshot["actions"])
        if actions.shape[1] != self.num_envs:
            raise ReplayError(
                f"the run was saved with {actions.shape[1]} environments, not {self.num_envs}: "
                "resume it with the same number"
            )
        observations = self.restart(int(snapshot["seed"]))
        for step in actions:
            taken = step if self._dtype != np.uint8 else step.astype(np.int64)
            observations, *_ = self.step(taken)
        return observations
