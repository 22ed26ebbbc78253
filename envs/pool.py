"""EnvPool's MiniGrid and BabyAI worlds as a stable-baselines3 ``VecEnv``."""

from __future__ import annotations

import os
import time
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from relagent.envs.observations import NO_ACTION, PARTS, check_parts, observation_space, tokenize
from relagent.envs.seeding import SeedError, training_seeds
from relagent.errors import RelagentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gymnasium as gym
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

Array = np.ndarray[Any, Any]

# EnvPool (1.2.5) lays out the next episode of these families while the agent still blocks its old
# cell, so that no object is ever placed there. After a second reset the blocked cell is the start
# of an episode that nobody saw, which makes no visible cell special.
_RESET_TWICE = ("MiniGrid-Fetch-", "MiniGrid-GoToObject-", "MiniGrid-PutNear-")

# EnvPool (1.2.5) never returns from about one reset in a thousand of this level: it looks for a
# mission that its small rooms cannot have. minigrid gives up such a layout and draws another.
_HANGING = frozenset({"BabyAI-SynthS5R2-v0"})


class ActionError(RelagentError):
    """Actions that EnvPool must not be given: it does not check them itself."""


class PoolAttributeError(RelagentError, AttributeError):
    """An attribute, method or wrapper of a single environment, which a pool does not have."""


class PoolClosedError(RelagentError):
    """The pool was closed, not reset yet, or made by another process."""


class PoolCopyError(RelagentError, TypeError):
    """A pool cannot be copied or pickled."""


class BackendError(RelagentError):
    """The backend asked for does not exist or does not have this environment."""


@lru_cache(maxsize=1)
def pool_ids() -> frozenset[str]:
    """The MiniGrid and BabyAI ids that EnvPool plays soundly; none where it is not installed."""
    try:
        import envpool
    except ImportError:
        return frozenset()
    names: list[str] = envpool.list_all_envs()
    return frozenset(n for n in names if n.startswith(("MiniGrid-", "BabyAI-"))) - _HANGING


class EnvPoolVecEnv(VecEnv):
    """Copies of one MiniGrid or BabyAI world, run in C++, with ``VecEnv``'s semantics.

    A finished environment is reset in the same step: the observation returned is the next
    episode's first, and the last one is in ``infos[i]["terminal_observation"]``, beside
    ``episode`` (return r, length l, seconds since the start t) and ``is_success``.
    ``TimeLimit.truncated`` tells whether the time limit alone ended the episode. An ending by the
    world itself on the last allowed step is terminated. One case stays as EnvPool reports it: a
    BabyAI mission *failed* on that step is truncated, because each of those missions has a limit
    of its own.

    Args:
        env_id: one of ``pool_ids()``.
        seeds: one seed per environment, in [0, 2**31).
        parts: the observation's parts, see ``observation_space``.
        action_space: the world's own actions where they are fewer than EnvPool's seven.
        n_threads: threads that step the environments. Results do not depend on it, and one is
            enough where the agent's own work takes most of the time.

    Raises:
        BackendError: EnvPool is missing or does not have this id.
        SeedError: a seed outside its range, or no seed at all.
        ObservationPartsError: see ``check_parts``.
    """

    backend: str

    def __init__(
        self,
        env_id: str,
        seeds: Sequence[int],
        *,
        parts: Sequence[str] = PARTS,
        action_space: spaces.Discrete | None = None,
        n_threads: int = 1,
    ) -> None:
        if env_id not in pool_ids():
            raise BackendError(
                f"{env_id} cannot be played by EnvPool: install envpool if it is missing, or "
                'choose the backend "minigrid".'
            )
        if len(seeds) == 0 or min(seeds) < 0 or max(seeds) >= 2**31:
            raise SeedError("EnvPool needs one seed an environment, each in 0 to 2**31 - 1.")
        import envpool

        n = len(seeds)
        self.backend = f"envpool {envpool.__version__}"
        self.env_id = env_id
        self.parts = check_parts(parts)
        self.n_threads = n_threads
        self._pool_seeds = [int(seed) for seed in seeds]
        # BabyAI levels (0 here) draw their limit with each mission.
        self.max_steps: int | None = int(envpool.make_spec(env_id).config.max_episode_steps) or None
        self._resets = 2 if env_id.startswith(_RESET_TWICE) else 1
        self._all_ids = np.arange(n, dtype=np.int32)
        self._pool: Any = None
        self._fresh = False
        self._actions: Array | None = None
        self._mission = np.zeros((n, tokenize("").size), dtype=np.uint8)
        self._returns = np.zeros(n, dtype=np.float64)
        self._start_time = time.time()
        super().__init__(n, observation_space(self.parts), action_space or spaces.Discrete(7))
        self._make_pool()

    def _make_pool(self) -> None:
        import envpool

        # EnvPool reports whatever happens on the last allowed step as truncated. With one step
        # more than the world allows, that step is an ordinary one, and this class draws the limit.
        options = {} if self.max_steps is None else {"max_episode_steps": self.max_steps + 1}
        self._pool = envpool.make(
            self.env_id,
            env_type="gymnasium",
            num_envs=self.num_envs,
            num_threads=self.n_threads,
            seed=self._pool_seeds,
            **options,
        )
        self._fresh = True
        self._process = os.getpid()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seeds that the next ``reset`` starts from: ``training_seeds(seed, n_envs)``."""
        self._seeds = list(training_seeds(seed, self.num_envs))
        return self._seeds

    def reset(self) -> dict[str, Array]:
        """Start a new episode in every environment, from the seeds last set, if any."""
        if self._pool is None:
            raise PoolClosedError("this environment was closed: make a new one.")
        self._check_process()
        seeds = [seed for seed in self._seeds if seed is not None]
        # A pool takes its seeds when it is made and at no other time.
        if seeds and not (self._fresh and seeds == self._pool_seeds):
            self._pool_seeds = seeds
            self._pool = None  # ends the old threads before new ones start
            self._make_pool()
        self._reset_seeds()
        self._reset_options()
        self._fresh = False
        self._actions = None
        self._returns[:] = 0
        raw = self._reset_ids(self._all_ids)
        self._mission[:] = self._tokens(raw["mission"])
        return self._observation(raw, np.full(self.num_envs, NO_ACTION, dtype=np.int64))

    def step_async(self, actions: Array) -> None:
        """Check the actions, int of shape (n_envs,), and keep them for ``step_wait``.

        Raises:
            ActionError: for another shape, a type that is not integer or a value outside the
                action space.
        """
        actions = np.asarray(actions)
        n = int(self.action_space.n)  # type: ignore[attr-defined]  # always Discrete here
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise ActionError(
                f"actions have shape {actions.shape} and type {actions.dtype}: "
                f"give integers of shape ({self.num_envs},)."
            )
        if actions.min() < 0 or actions.max() >= n:
            raise ActionError(
                f"actions reach from {actions.min()} to {actions.max()}: {self.env_id} takes 0 to "
                f"{n - 1}."
            )
        if self._pool is None or self._fresh:
            raise PoolClosedError("step before reset, or after close: call reset() first.")
        self._check_process()
        self._actions = actions.astype(np.int32)  # a copy: the caller may reuse its array

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment; see the class for what the infos hold."""
        if self._actions is None:
            raise PoolClosedError("there is no step to wait for: call step_async(actions) first.")
        actions, self._actions = self._actions, None
        raw, reward, terminated, truncated, info = self._pool.step(actions)
        elapsed = info["elapsed_step"]
        if self.max_steps is None:
            terminated = terminated | (reward > 0)
        else:
            truncated = elapsed >= self.max_steps
            won = np.flatnonzero(reward > 0)
            if won.size:  # the reward counts the steps against the world's true limit
                reward[won] = 1 - 0.9 * (elapsed[won] / self.max_steps)
        done = terminated | truncated
        self._returns += reward
        observation = self._observation(raw, actions.astype(np.int64))
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        finished = np.flatnonzero(done)
        if finished.size:
            seconds = round(time.time() - self._start_time, 6)
            for i in finished.tolist():
                infos[i] = {
                    "TimeLimit.truncated": not terminated[i],
                    "terminal_observation": {k: v[i].copy() for k, v in observation.items()},
                    "episode": {
                        "r": round(float(self._returns[i]), 6),
                        "l": int(elapsed[i]),
                        "t": seconds,
                    },
                    "is_success": bool(reward[i] > 0),
                }
            self._start_episodes(finished, observation)
        return observation, reward, done, infos

    def _check_process(self) -> None:
        # A forked child has no copy of the pool's threads and would wait for them for ever.
        if os.getpid() != self._process:
            raise PoolClosedError(
                "this EnvPool environment was made before the process forked: make it afterwards."
            )

    def _start_episodes(self, finished: Array, observation: dict[str, Array]) -> None:
        """Reset these environments and write their first observation over the last."""
        raw = self._reset_ids(finished.astype(np.int32))
        self._returns[finished] = 0
        if "mission" in self.parts:
            self._mission[finished] = self._tokens(raw["mission"])
        first = {
            "image": raw["image"],
            "direction": raw["direction"],
            "previous_action": NO_ACTION,
            "mission": self._mission[finished],
        }
        for part, values in observation.items():
            values[finished] = first[part]

    def _reset_ids(self, ids: Array) -> dict[str, Array]:
        """First observations of new episodes, in the order of the ids."""
        raw: dict[str, Array] = {}
        for _ in range(self._resets):
            raw, _ = self._pool.reset(ids)
        return raw

    def _observation(self, raw: dict[str, Array], previous_action: Array) -> dict[str, Array]:
        every = {
            "image": raw["image"],  # EnvPool hands out fresh memory at each step
            "direction": raw["direction"].astype(np.int64),
            "previous_action": previous_action,
            "mission": self._mission,
        }
        return {p: every[p].copy() if p == "mission" else every[p] for p in self.parts}

    @staticmethod
    def _tokens(missions: Array) -> Array:
        """Word ids of EnvPool's zero-padded mission texts: (k, bytes) -> (k, MISSION_LENGTH)."""
        return np.stack([tokenize(m.tobytes().rstrip(b"\0").decode()) for m in missions])

    def __reduce__(self) -> str:
        raise PoolCopyError(
            "an EnvPool environment cannot be copied or pickled: make another with make_vec_env."
        )

    def close(self) -> None:
        """Drop the pool, which ends its threads."""
        self._pool = None
        self._actions = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute that all environments share: spec, max_steps, spaces or render_mode.

        Raises:
            PoolAttributeError: for any other name.
        """
        return [self._shared(attr_name)] * len(self._target_indices(indices))

    def _shared(self, name: str) -> Any:
        if name == "render_mode":
            return None
        if name == "spec":
            return self._spec()
        if name in ("max_steps", "observation_space", "action_space"):
            return getattr(self, name)
        raise PoolAttributeError(
            f"an EnvPool environment has no attribute {name!r}, only render_mode, spec, max_steps, "
            'observation_space and action_space: use make_vec_env(..., backend="minigrid").'
        )

    def _spec(self) -> gym.envs.registration.EnvSpec:
        import gymnasium as gym

        return gym.spec(self.env_id)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible: the environments live in C++.

        Raises:
            PoolAttributeError: always.
        """
        raise PoolAttributeError(
            f"{attr_name!r} cannot be set on EnvPool environments: "
            'use make_vec_env(..., backend="minigrid").'
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Not possible, except ``get_wrapper_attr`` of a shared attribute.

        Raises:
            PoolAttributeError: for any other method.
        """
        if method_name == "get_wrapper_attr" and len(method_args) == 1 and not method_kwargs:
            return self.get_attr(method_args[0], indices)
        raise PoolAttributeError(
            f"{method_name!r} cannot be called on EnvPool environments: "
            'use make_vec_env(..., backend="minigrid").'
        )

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for ``Monitor``, whose work the pool does itself; False for all others."""
        from stable_baselines3.common.monitor import Monitor

        return [issubclass(wrapper_class, Monitor)] * len(self._target_indices(indices))

    def get_images(self) -> Sequence[Array | None]:
        """Nothing can be rendered: None for each environment."""
        warnings.warn("EnvPool environments cannot be rendered.", stacklevel=2)
        return [None] * self.num_envs

    def _target_indices(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))
