"""One function that makes any environment, on the fastest backend that has it."""

from __future__ import annotations

import difflib
import importlib
from functools import lru_cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from relagent.envs.observations import (
    PARTS,
    GridObservation,
    ObservationPartsError,
    UnsupportedSpaceError,
    mission_varies,
)
from relagent.envs.pairs import canonical_id
from relagent.envs.pool import BackendError, EnvPoolVecEnv, pool_ids
from relagent.envs.seeding import training_seeds
from relagent.errors import RelagentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Backend = Literal["auto", "envpool", "minigrid"]


class UnknownEnvironmentError(RelagentError):
    """No registered environment has this id, or one that has cannot be made or begun."""


class EnvCountError(RelagentError):
    """A number of environments or threads below one."""


class PythonVecEnv(DummyVecEnv):
    """stable-baselines3's ``DummyVecEnv`` with a backend's name and hashed seeds."""

    backend: str

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self.backend = python_backend(_is_grid(self.envs[0]))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seeds of the next ``reset``: ``training_seeds(seed, n_envs)``."""
        self._seeds = list(training_seeds(seed, self.num_envs))
        return self._seeds


def make_vec_env(
    env_id: str,
    n_envs: int,
    seed: int,
    *,
    backend: Backend = "auto",
    parts: Sequence[str] | None = None,
    n_threads: int = 1,
) -> VecEnv:
    """``n_envs`` environments as a stable-baselines3 ``VecEnv`` that reports its episodes.

    MiniGrid and BabyAI worlds have the observations of ``observation_space(parts)``, the same on
    both backends; any other Gymnasium environment is left as it is.

    Args:
        env_id: a registered Gymnasium id.
        n_envs: number of environments, at least 1.
        seed: the seed that all environments' seeds are hashed from, at least 0.
        backend: ``"envpool"`` (C++), ``"minigrid"`` (Python, also for environments of other
            packages) or ``"auto"``: EnvPool where it is installed and has the id.
        parts: parts of the observation, ``default_parts(env_id)`` if None.
        n_threads: EnvPool's threads; it has no influence on the results.

    Raises:
        UnknownEnvironmentError, BackendError, EnvCountError, UnsupportedSpaceError,
        ObservationPartsError, SeedError: each says what to change.
    """
    if n_envs < 1:
        raise EnvCountError(f"{n_envs} environments were asked for: choose 1 or more.")
    if n_threads < 1:
        raise EnvCountError(f"{n_threads} threads were asked for: choose 1 or more.")
    if backend not in ("auto", "envpool", "minigrid"):
        raise BackendError(f"unknown backend {backend!r}: choose auto, envpool or minigrid.")
    template = make_env(env_id, parts)
    check_reset(env_id, template)
    if template.spec is not None:
        env_id = template.spec.id  # gymnasium takes ids without their version
    venv: VecEnv
    if isinstance(template, GridObservation) and (
        backend == "envpool" or (backend == "auto" and env_id in pool_ids())
    ):
        actions = template.action_space
        venv = EnvPoolVecEnv(
            env_id,
            training_seeds(seed, n_envs),
            parts=template.parts,
            action_space=actions if isinstance(actions, spaces.Discrete) else None,
            n_threads=n_threads,
        )
    elif backend == "envpool":
        raise BackendError(
            f'{env_id} is no MiniGrid or BabyAI world: choose the backend "auto" or "minigrid".'
        )
    else:
        venv = PythonVecEnv([partial(_monitored, env_id, parts) for _ in range(n_envs)])
    template.close()
    venv.seed(seed)
    return venv


def make_env(env_id: str, parts: Sequence[str] | None = None) -> gym.Env[Any, Any]:
    """One environment of the Python package, a MiniGrid or BabyAI world as a ``GridObservation``.

    Raises:
        UnknownEnvironmentError: no registered environment has this id.
        UnsupportedSpaceError: see ``check_space`` and ``check_actions``; or a MiniGrid world whose
            view or actions are not those of the registered ones.
        ObservationPartsError: see ``check_parts``; or parts of an environment that has none.
    """
    env = _gym_make(env_id)
    check_actions(env_id, env.action_space)
    if _is_grid(env):
        return GridObservation(env, parts if parts is not None else default_parts(env_id))
    if parts is not None:
        raise ObservationPartsError(
            f"{env_id} is no MiniGrid or BabyAI world, so its observation has no parts: leave "
            "them out."
        )
    check_space(env_id, env.observation_space)
    return env


@lru_cache(maxsize=1024)
def default_parts(env_id: str) -> tuple[str, ...]:
    """All parts of the observation, without the mission where a world never varies it.

    Raises:
        UnknownEnvironmentError: no registered environment has this id.
    """
    env = _gym_make(env_id)
    varies = mission_varies(env)
    env.close()
    return tuple(part for part in PARTS if part != "mission" or varies)


def check_reset(env_id: str, env: gym.Env[Any, Any]) -> None:
    """Check that a world can begin an episode: some look for what they need only then.

    Raises:
        UnknownEnvironmentError: it cannot.
    """
    try:
        env.reset(seed=0)
    except gym.error.Error as error:
        raise UnknownEnvironmentError(f"{env_id} cannot begin an episode: {error}") from error


def episode_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return after how many steps every episode ends: MiniGrid counts, others are registered so.

    BabyAI's worlds know it once they were reset, and say 0 before. Where it is ``None``, an agent
    that goes round in circles never comes to an end.
    """
    if _is_grid(env):
        return int(cast(Any, env.unwrapped).max_steps)
    return None if env.spec is None else env.spec.max_episode_steps


def backend_of(venv: VecEnv) -> str:
    """Name and version of what runs these environments, such as ``"envpool 1.2.5"``."""
    name = getattr(venv.unwrapped, "backend", None)
    return name if isinstance(name, str) else python_backend(grid=False)


def python_backend(grid: bool) -> str:
    """Name and version of what runs worlds in Python, grids or others."""
    package = "minigrid" if grid else "gymnasium"
    return f"{package} {version(package)}"


def _gym_make(env_id: str) -> gym.Env[Any, Any]:
    import minigrid  # noqa: F401  # registers its ids with gymnasium

    if ":" in env_id:
        try:
            importlib.import_module(env_id.rpartition(":")[0])
        except (ImportError, ValueError, TypeError) as error:  # the last two: no name of a module
            raise UnknownEnvironmentError(
                f"{env_id!r} names a module that cannot be imported: {error}"
            ) from error
    try:
        # The checker complains about minigrid's own text space at every reset.
        return gym.make(env_id, disable_env_checker=True)
    except (gym.error.Error, ImportError) as error:
        if canonical_id(env_id) in gym.registry:
            raise UnknownEnvironmentError(f"{env_id} cannot be made: {error}") from error
        near = difflib.get_close_matches(env_id, list(gym.registry), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "give an id such as CartPole-v1."
        if ":" not in env_id:
            hint += f" (one of your own has its module before it: my_module:{env_id})"
        raise UnknownEnvironmentError(f"unknown environment {env_id!r}: {hint}") from error


def _monitored(env_id: str, parts: Sequence[str] | None) -> gym.Env[Any, Any]:
    return Monitor(make_env(env_id, parts))


def _is_grid(env: gym.Env[Any, Any]) -> bool:
    from minigrid.minigrid_env import MiniGridEnv

    return isinstance(env.unwrapped, MiniGridEnv)


def check_space(env_id: str, space: spaces.Space[Any]) -> None:
    """Check that an agent can observe this.

    Raises:
        UnsupportedSpaceError: it cannot.
    """
    leaves = space.spaces.values() if isinstance(space, spaces.Dict) else (space,)
    if not all(isinstance(leaf, spaces.Box | spaces.Discrete) for leaf in leaves):
        raise UnsupportedSpaceError(
            f"{env_id} observes {space}: only Box, Discrete and a Dict of those can be used; "
            "relagent.envs.make_env makes a MiniGrid world observe such."
        )
    if any(np.any(getattr(leaf, "start", 0)) for leaf in leaves):
        raise UnsupportedSpaceError(
            f"{env_id} observes {space}: only numbers from 0 can be used; shift them by a "
            "gymnasium.ObservationWrapper."
        )
    names = space.spaces if isinstance(space, spaces.Dict) else ()
    points = [leaf for leaf in leaves if isinstance(leaf, spaces.Box) and leaf.shape == ()]
    if points or any("." in name for name in names):
        raise UnsupportedSpaceError(
            f"{env_id} observes {space}: only boxes of at least one dimension, and names without a "
            "full stop, can be used; change them by a gymnasium.ObservationWrapper."
        )


def check_actions(env_id: str, space: spaces.Space[Any]) -> None:
    """Check that an agent can take these actions, in numbers from 0.

    Raises:
        UnsupportedSpaceError: it cannot.
    """
    bounded = isinstance(space, spaces.Box) and space.is_bounded()
    flat = isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and len(space.shape) == 1
    if not (isinstance(space, spaces.Discrete) or bounded or flat):
        raise UnsupportedSpaceError(
            f"{env_id} takes actions {space}: only Discrete, a Box with bounds, and MultiDiscrete "
            "and MultiBinary of one dimension can be used; a gymnasium.ActionWrapper changes them."
        )
    if np.any(getattr(space, "start", 0)):
        raise UnsupportedSpaceError(
            f"{env_id} takes actions {space}: only numbers from 0 can be used; shift them by a "
            "gymnasium.ActionWrapper."
        )
