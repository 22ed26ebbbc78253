"""Episodes in which the agent sees less, so that a small world asks for exploration and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from relagent.errors import RelagentError

Array = np.ndarray[Any, Any]

BEGINS, ENDS = 1 / 16, 1 / 8
"""Probability at each step that a blind spell begins, where there is none, and that one ends."""
MOST_DEAD = 0.9
"""Largest probability of a cell to be dead."""


class SightError(RelagentError):
    """Impairments of sight that cannot work."""


class Impairments(NamedTuple):
    """In which shares of the episodes the agent sees less, each drawn at random and independently.

    A view of 7 x 7 cells reaches across all of a small world, so that an agent that learns there
    finds shortcuts that a larger world does not have. Each impairment closes one of them. A cell
    that is not seen has the codes 0, as those behind walls have.
    """

    short_sight: float = 0.0
    """Cells further away than a range of 1 to V - 2 cells (drawn for the episode; to the side, or
    ahead) are unseen. The agent has to look for things, not only at them."""
    blind_spells: float = 0.0
    """Spells come and go in which nothing is seen but the cell that the agent stands on. Without,
    it has seen everything after some steps, and learns that it knows what matters because time has
    passed."""
    dead_cells: float = 0.0
    """Some places of the view show nothing, each with a probability that is drawn for the episode,
    from 0 to 0.9. Without, it learns from where everything can be seen, and gives up where it is
    not."""


class ImpairedSightVecEnv(VecEnvWrapper):
    """Let the agent see fewer cells in some of the episodes it trains in.

    This is an augmentation of observations, as in RAD (Laskin et al. 2020), but for many steps.
    Scores of impaired episodes are not those of the world: ``episode`` and ``is_success`` are taken
    out of their infos.

    Args:
        venv: environments with the observations of :func:`~relagent.envs.make_vec_env`.
        shares: probabilities that an episode has an impairment.
        seed: of what is drawn; as in any environment, :meth:`seed` counts from the next reset on.

    Raises:
        SightError: a share is no probability, or observations have no view.
    """

    def __init__(self, venv: VecEnv, shares: Impairments, seed: int = 0) -> None:
        super().__init__(venv)
        for share in shares:
            if not 0 <= share <= 1:
                raise SightError(f"a share of {share} cannot work: use 0 to 1")
        space = self.observation_space
        if not (isinstance(space, spaces.Dict) and "image" in space.spaces):
            raise SightError(f"observations without an image have no sight to impair: {space}")
        self.shares = shares
        view, envs = int((space["image"].shape or (0,))[0]), self.num_envs
        self._distance = distances(view)
        self._ranges = np.full(envs, view)
        self._has_spells = np.zeros(envs, bool)
        self._in_spell = np.zeros(envs, bool)
        self._dead = np.zeros((envs, view, view), bool)
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
        self._pass_time()
        if dones.any():
            infos = list(infos)  # SubprocVecEnv has a tuple
            self._end_episodes(np.flatnonzero(dones & self.impaired), infos)
        self._draw(dones)
        return self._seen(observations), rewards, dones, infos

    def _end_episodes(self, envs: Array, infos: list[dict[str, Any]]) -> None:
        """Cut the last observations of impaired episodes, whose scores are none."""
        visible = self.visible
        for env in envs:
            info = dict(infos[env])
            info.pop("episode", None)
            info.pop("is_success", None)
            if "terminal_observation" in info:
                last = info["terminal_observation"]
                image = _cut(last["image"], visible[env])
                info["terminal_observation"] = {**last, "image": image}
            infos[env] = info

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """As the environments say, but for ``Monitor``: whoever counts on its scores gets not all.

        So stable-baselines3's ``evaluate_policy`` counts rewards itself.
        """
        wrapped = super().env_is_wrapped(wrapper_class, indices)
        return [False] * len(wrapped) if issubclass(wrapper_class, Monitor) else wrapped

    @property
    def visible(self) -> Array:
        """Which places of the view show something at this step: [n_envs, view, view] Boolean."""
        ranges = np.where(self._in_spell, 0, self._ranges)
        return (self._distance <= ranges[:, None, None]) & ~self._dead

    @property
    def impaired(self) -> Array:
        """Where the running episode shows less than the world would: [n_envs] Boolean."""
        short = self._ranges < len(self._distance)
        return short | self._has_spells | self._dead.any(axis=(1, 2))

    def _draw(self, where: Array) -> None:
        """Draw the impairments of episodes that begin."""
        random, (envs, view, _) = self._generator.random, self._dead.shape
        short = random(envs) < self.shares.short_sight
        drawn = self._generator.integers(1, view - 1, envs)
        self._ranges = np.where(where, np.where(short, drawn, view), self._ranges)
        if self.shares.blind_spells:
            spells = random(envs) < self.shares.blind_spells
            first = spells & (random(envs) < BEGINS / (BEGINS + ENDS))
            self._has_spells = np.where(where, spells, self._has_spells)
            self._in_spell = np.where(where, first, self._in_spell)
        if self.shares.dead_cells:
            has = random(envs) < self.shares.dead_cells
            probability = np.where(has, MOST_DEAD * random(envs), 0)[:, None, None]
            dead = (random((envs, view, view)) < probability) & (self._distance > 0)
            self._dead = np.where(where[:, None, None], dead, self._dead)

    def _pass_time(self) -> None:
        """Let blind spells begin and end."""
        if self.shares.blind_spells:
            drawn = self._generator.random(self.num_envs)
            goes_on = np.where(self._in_spell, drawn >= ENDS, drawn < BEGINS)
            self._in_spell = self._has_spells & goes_on

    def _seen(self, observations: Any) -> Any:
        return {**observations, "image": _cut(observations["image"], self.visible)}


def _cut(image: Array, visible: Array) -> Array:
    """Return images [..., view, view, 3] with 0 where they are not visible [..., view, view]."""
    return np.where(visible[..., None], image, image.dtype.type(0))


def distances(view: int) -> Array:
    """Return how far each cell of a view is from the agent, to the side or ahead: [view, view].

    The agent stands in the middle of the last row.
    """
    side, ahead = np.abs(np.arange(view) - view // 2), view - 1 - np.arange(view)
    return np.maximum(side[:, None], ahead[None, :])
