"""Episodes in which the agent sees less far, so that a small world asks for exploration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.errors import RelagentError

Array = np.ndarray[Any, Any]


class SightError(RelagentError):
    """Short sight that cannot work."""


class ShortSightedVecEnv(VecEnvWrapper):
    """Let the agent see fewer cells in some of the episodes it trains in.

    A view of 7 x 7 cells shows all of a small world at once: an agent that learns there never has
    to look for anything, and walks past what it needs in a larger world. In a share of the
    episodes, drawn at random, cells further away than a range of 1 to V - 2 cells (drawn for the
    episode; to the side, or ahead) are unseen: their codes are 0, as those behind walls are. It is
    an augmentation of observations, as in RAD (Laskin et al. 2020), but for a whole episode.

    Scores of short-sighted episodes are not those of the world: ``episode`` and ``is_success`` are
    taken out of their infos.

    Args:
        venv: environments with the observations of :func:`~relagent.envs.make_vec_env`.
        share: probability that an episode is short-sighted.
        seed: of what is drawn; as in any environment, :meth:`seed` counts from the next reset on.

    Raises:
        SightError: ``share`` is no probability, or observations have no view.
    """

    def __init__(self, venv: VecEnv, share: float, seed: int = 0) -> None:
        super().__init__(venv)
        if not 0 <= share <= 1:
            raise SightError(f"a share of {share} cannot work: use 0 to 1")
        space = self.observation_space
        if not (isinstance(space, spaces.Dict) and "image" in space.spaces):
            raise SightError(f"observations without an image cannot be cut short: {space}")
        self.share = share
        view = int((space["image"].shape or (0,))[0])
        self._distance = distances(view)
        self._ranges = np.full(self.num_envs, view)
        self._generator = np.random.default_rng(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """See ``VecEnv``."""
        self._generator = np.random.default_rng(seed)
        return self.venv.seed(seed)

    def reset(self) -> VecEnvObs:
        """See ``VecEnv``."""
        self._draw(np.ones(self.num_envs, bool))
        return cast(VecEnvObs, self._seen(self.venv.reset()))

    def step_wait(self) -> VecEnvStepReturn:
        """See ``VecEnv``."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for env in np.flatnonzero(dones & self.short_sighted):
            info = dict(infos[env])
            info.pop("episode", None)
            info.pop("is_success", None)
            if "terminal_observation" in info:
                last = info["terminal_observation"]
                info["terminal_observation"] = {
                    **last,
                    "image": self._cut(last["image"], self._ranges[env]),
                }
            infos[env] = info
        self._draw(dones)
        return self._seen(observations), rewards, dones, infos

    @property
    def short_sighted(self) -> Array:
        """Where the running episode is one with a shorter range: [n_envs] Boolean."""
        return self._ranges < len(self._distance)

    def _draw(self, where: Array) -> None:
        """Draw the ranges of episodes that begin."""
        view = len(self._distance)
        short = self._generator.random(self.num_envs) < self.share
        drawn = self._generator.integers(1, view - 1, self.num_envs)
        self._ranges = np.where(where, np.where(short, drawn, view), self._ranges)

    def _seen(self, observations: Any) -> Any:
        image = self._cut(observations["image"], self._ranges[:, None, None])
        return {**observations, "image": image}

    def _cut(self, image: Array, ranges: Array) -> Array:
        return np.where((self._distance <= ranges)[..., None], image, image.dtype.type(0))


def distances(view: int) -> Array:
    """Return how far each cell of a view is from the agent, to the side or ahead: [view, view].

    The agent stands in the middle of the last row.
    """
    side, ahead = np.abs(np.arange(view) - view // 2), view - 1 - np.arange(view)
    return np.maximum(side[:, None], ahead[None, :])
