"""Acting: the rollouts of a policy that remembers, whatever algorithm learns from them."""

from __future__ import annotations

import inspect
from copy import deepcopy
from itertools import compress
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from relagent.envs import check_actions, check_space, make_vec_env
from relagent.errors import RelagentError, did_you_mean
from relagent.memories import AnyState, take_rows
from relagent.rl.exploring import ExploringStarts
from relagent.rl.policy import (
    GruPolicy,
    LstmPolicy,
    MemLstmPolicy,
    MemoryPolicy,
    NoMemoryPolicy,
    RelLstmPolicy,
)
from relagent.rl.rollout import Rollout


class ModelOptionError(RelagentError):
    """A setting of a model, or an environment, that cannot work."""


class MemoryAlgorithm(OnPolicyAlgorithm):
    """What an on-policy algorithm with memory does before it learns: it acts.

    A subclass says in ``train`` how to learn from ``rollout``, the last one. Rollouts are
    time-major and keep one start state per environment. Where an episode was truncated, the value
    of its last observation is read with the memory as it was before the reset.

    Args:
        policy: a name, or a subclass of :class:`~relagent.rl.policy.MemoryPolicy`.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        exploring_starts: see :class:`~relagent.rl.exploring.ExploringStarts`.
        arguments: of stable-baselines3's ``OnPolicyAlgorithm``.

    Raises:
        ModelOptionError: an unknown policy, or an unknown option of it.
        UnsupportedSpaceError, UnknownEnvironmentError: an environment that no agent can act in.
    """

    policy: MemoryPolicy  # type: ignore[assignment]  # the base class means its own actor-critic
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "RelLstmPolicy": RelLstmPolicy,
        "MemLstmPolicy": MemLstmPolicy,
        "LstmPolicy": LstmPolicy,
        "GruPolicy": GruPolicy,
        "NoMemoryPolicy": NoMemoryPolicy,
        "MemoryPolicy": MemoryPolicy,
    }

    def __init__(
        self,
        policy: str | type[MemoryPolicy],
        env: GymEnv | str,
        *,
        exploring_starts: int = 0,
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            cast(Any, policy),
            _made(env, seed),
            seed=seed,
            **arguments,
            _init_setup_model=False,
            supported_action_spaces=(
                spaces.Box,
                spaces.Discrete,
                spaces.MultiDiscrete,
                spaces.MultiBinary,
            ),
        )
        self.exploring_starts = exploring_starts
        self.rollout: Rollout | None = None
        self._last_state: AnyState | None = None

    def _setup_model(self) -> None:
        if not hasattr(self, "observation_space"):
            raise ModelOptionError(
                "there is no environment: pass one, its id, or a VecEnv, which say what is observed"
            )
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._check_policy_kwargs()
        self.policy = cast(
            MemoryPolicy,
            self.policy_class(
                self.observation_space,
                self.action_space,
                self.lr_schedule,
                use_sde=self.use_sde,
                **self.policy_kwargs,
            ),
        ).to(self.device)
        self._exploring = ExploringStarts(self.exploring_starts, self.action_space)
        self.rollout_buffer = cast(Any, None)  # the base class passes it on; it is not used here

    def _check_policy_kwargs(self) -> None:
        """Check the names of the policy's options."""
        known = inspect.signature(self.policy_class).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            return
        for name in self.policy_kwargs:
            if name not in known:
                raise ModelOptionError(
                    f"policy_kwargs has an unknown option {name!r}{did_you_mean(name, known)}: "
                    "options of the memory, such as nu and rho, belong in its memory_kwargs"
                )

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            hint = did_you_mean(policy_name, self.policy_aliases)
            raise ModelOptionError(
                f"unknown policy {policy_name!r}{hint}: choose one of "
                f"{', '.join(self.policy_aliases)}, or pass a class"
            )
        return self.policy_aliases[policy_name]

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
    ) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ModelOptionError(
                "there is no environment to learn in: give one to load(path, env) or set_env(env)"
            )
        # The base class resets the environments in these cases alone.
        begins = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)
        if begins or self._last_state is None:
            self.begin_episodes(self._last_obs)
        return result

    def begin_episodes(self, observations: Any) -> None:
        """Go on from the first observations of new episodes in all environments."""
        self._last_obs = observations
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        self._last_state = self.policy.initial_state(self.n_envs)
        self._exploring.restart(self.n_envs)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int
    ) -> bool:
        """Act for ``n_rollout_steps`` steps in every environment.

        Returns:
            False where a callback asked to stop.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()

        assert self._last_obs is not None and self._last_state is not None
        state, recall = self._last_state, self.policy.new_recall()
        rollout = Rollout(n_rollout_steps, env.num_envs, state, recall)
        for _ in range(n_rollout_steps):
            observations = recall.number(self._to_tensors(self._last_obs))
            episode_starts = self._to_tensor(self._last_episode_starts).bool()
            # For acting alone: the last bits of an encoding depend on what it is computed together
            # with, so that a callback's evaluations, if they shared it, would change training.
            with self.policy.acting(recall):
                actions, values, log_prob, state = self.policy(observations, state, episode_starts)
            actions, own = self._exploring.open(actions)

            new_obs, rewards, dones, infos = env.step(self.policy.to_env(actions))
            self.num_timesteps += env.num_envs

            # Also where a callback stops training within the rollout, this is where worlds are.
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
            self._last_state = state
            played = self._exploring.own.numpy()
            self._exploring.end(torch.as_tensor(dones))

            callback.update_locals(locals())
            if not callback.on_step():
                return False
            # What opened with random actions says nothing of the agent.
            self._update_info_buffer(list(compress(infos, played)), dones[played])

            rewards = self._bootstrap_truncated(rewards, dones, infos, state)
            rollout.add(
                observations,
                episode_starts,
                actions,
                self._to_tensor(rewards).to(values.dtype),
                values,
                log_prob,
                own,
            )

        ended = self._to_tensor(dones).bool()
        with torch.no_grad():
            last_values = self.policy.predict_values(self._to_tensors(new_obs), state, ended)
        rollout.finish(last_values, ended, self.gamma, self.gae_lambda)
        self.rollout = rollout

        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _bootstrap_truncated(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]], state: AnyState
    ) -> np.ndarray:
        """Add γ V(last observation) to the reward of a step that cut its episode off.

        The value is read with the memory *before* its reset. An episode that terminated on the
        same step has no future to add.
        """
        cut = [
            env
            for env in np.flatnonzero(dones)
            if infos[env].get("TimeLimit.truncated", False)
            and infos[env].get("terminal_observation") is not None
        ]
        if not cut:
            return rewards
        last = [infos[env]["terminal_observation"] for env in cut]
        observations = (
            {key: np.stack([obs[key] for obs in last]) for key in last[0]}
            if isinstance(last[0], dict)
            else np.stack(last)
        )
        rows = torch.as_tensor(np.asarray(cut), device=self.device)
        with torch.no_grad():
            values = self.policy.predict_values(
                self._to_tensors(observations),
                take_rows(state, rows),
                torch.zeros(len(cut), dtype=torch.bool, device=self.device),
            )
        rewards = rewards.astype(np.result_type(rewards, np.float32))  # a copy, of any numbers
        rewards[cut] += self.gamma * values.cpu().numpy()
        return rewards

    # Both copy, since an environment may write its next step into the same arrays.
    def _to_tensor(self, array: Any) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _to_tensors(self, observations: Any) -> Any:
        return obs_as_tensor(deepcopy(observations), self.device)


def _made(env: GymEnv | str | None, seed: int | None) -> Any:
    """Make the environment of an id; check one that is made already."""
    if isinstance(env, str):
        drawn = np.random.SeedSequence().generate_state(1)[0]
        return make_vec_env(env, 1, int(drawn) if seed is None else seed)
    if env is not None:
        name = getattr(getattr(env, "spec", None), "id", type(env).__name__)
        check_space(name, env.observation_space)
        check_actions(name, env.action_space)
    return env
