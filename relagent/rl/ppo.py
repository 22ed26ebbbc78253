"""Proximal policy optimisation of a policy that remembers."""

from __future__ import annotations

import difflib
import io
import math
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
    explained_variance,
    get_system_info,
    obs_as_tensor,
)
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from relagent.envs import check_space, make_vec_env
from relagent.errors import RelagentError
from relagent.memories import AnyState, take_rows
from relagent.rl.checkpoint import (
    check_spaces,
    model_arguments,
    model_state,
    read_training,
    restore_model,
    space_of,
)
from relagent.rl.exploring import ExploringStarts
from relagent.rl.gradient import JointGradient
from relagent.rl.loss import ppo_loss
from relagent.rl.policy import (
    GruPolicy,
    LstmPolicy,
    MemLstmPolicy,
    MemoryPolicy,
    NoMemoryPolicy,
    RelLstmPolicy,
)
from relagent.rl.rollout import Minibatch, Rollout
from relagent.runs.checkpoint import CheckpointDamagedError, load_file, save_file
from relagent.runs.directory import RunDirectory
from relagent.runs.packing import pack, unpack


class PPOOptionError(RelagentError):
    """A setting of the algorithm, or an environment, that cannot work."""


class TrainingDivergedError(RelagentError):
    """An update whose gradient is no finite number: the policy is of no use any more."""

    def __init__(self, steps: int) -> None:
        super().__init__(
            f"training diverged by step {steps:,}: the gradient is no finite number; look for such "
            "numbers in rewards and observations, or choose a smaller learning rate"
        )


class MemoryPPO(OnPolicyAlgorithm):
    """PPO (Schulman et al. 2017) with any memory of the registry.

    It takes the arguments of sb3-contrib's ``RecurrentPPO`` and is used the same way::

        model = MemoryPPO("RelLstmPolicy", env, policy_kwargs=dict(memory_kwargs=dict(nu=5, rho=5)))
        model.learn(500_000)
        action, state = model.predict(obs, state, episode_start)

    Rollouts are time-major and keep one start state per environment; minibatches take whole
    environments, so gradients reach back through the whole rollout, and to its start exactly.
    Where an episode was truncated, the value of its last observation is read with the memory as it
    was before the reset.

    Args:
        policy: ``"RelLstmPolicy"``, ``"MemLstmPolicy"``, ``"LstmPolicy"``, ``"GruPolicy"``,
            ``"NoMemoryPolicy"``, or a subclass of :class:`~relagent.rl.policy.MemoryPolicy`.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: Adam's step size, or a schedule.
        n_steps: T, steps of each environment between two updates.
        batch_size: transitions in a minibatch; rounded down to whole environments, at least one.
        n_epochs: passes over each rollout.
        gamma: discount γ.
        gae_lambda: λ of generalised advantage estimation.
        clip_range: ε of the clipped surrogate.
        clip_range_vf: the same for values; ``None``: not clipped.
        normalize_advantage: to mean 0 and deviation 1 over the rollout.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: the gradient's norm is clipped to this.
        exploring_starts: open every second episode with up to this many random actions, see
            :class:`~relagent.rl.exploring.ExploringStarts`.
        target_kl: stop the epochs when the approximate KL divergence passes 1.5 times this.
        policy_kwargs: options of the policy.

    Raises:
        PPOOptionError: an impossible setting, or an unknown policy.
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
        learning_rate: float | Schedule = 5e-4,
        n_steps: int = 128,
        batch_size: int = 512,
        n_epochs: int = 4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        exploring_starts: int = 0,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        for name, value in (
            ("n_steps", n_steps),
            ("batch_size", batch_size),
            ("n_epochs", n_epochs),
        ):
            if value < 1:
                raise PPOOptionError(f"{name}={value} cannot work: use at least 1")
        for name, number, least, most in (
            ("gamma", gamma, 0, 1),
            ("gae_lambda", gae_lambda, 0, 1),
            ("ent_coef", ent_coef, -math.inf, math.inf),
            ("vf_coef", vf_coef, 0, math.inf),
            ("max_grad_norm", max_grad_norm, 0, math.inf),
        ):
            if not least <= number <= most:  # not true of what is not a number
                raise PPOOptionError(f"{name}={number} cannot work: use {least} to {most}")
        super().__init__(
            cast(Any, policy),
            _made(env, seed),
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(
                spaces.Box,
                spaces.Discrete,
                spaces.MultiDiscrete,
                spaces.MultiBinary,
            ),
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.exploring_starts = exploring_starts
        self.target_kl = target_kl
        self._last_state: AnyState | None = None
        self.rollout: Rollout | None = None
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
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
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)
        self._exploring = ExploringStarts(self.exploring_starts, self.action_space)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            near = difflib.get_close_matches(policy_name, self.policy_aliases, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise PPOOptionError(
                f"unknown policy {policy_name!r}{hint}: choose one of "
                f"{', '.join(self.policy_aliases)}, or pass a class"
            )
        return self.policy_aliases[policy_name]

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        before = self._last_obs
        result = super()._setup_learn(*args, **kwargs)
        if self._last_obs is not before or self._last_state is None:
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

    def train(self) -> None:
        """Improve the policy on the last rollout.

        Raises:
            TrainingDivergedError: a gradient was no finite number.
        """
        rollout = self.rollout
        assert rollout is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        progress = self._current_progress_remaining
        clip_range = cast(Schedule, self.clip_range)(progress)
        clip_range_vf = (
            None if self.clip_range_vf is None else cast(Schedule, self.clip_range_vf)(progress)
        )

        own = rollout.own
        if self.normalize_advantage and own.sum() > 1:
            advantages = rollout.advantages[own]
            rollout.advantages = (rollout.advantages - advantages.mean()) / (
                advantages.std() + 1e-8
            )

        gradient = JointGradient(self.policy.parameters())
        envs_per_batch = max(1, self.batch_size // rollout.n_steps)
        n_batches = math.ceil(rollout.n_envs / envs_per_batch)
        statistics: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.n_epochs):
            kl_divergences = []
            for batch in rollout.minibatches(n_batches):
                loss, batch_statistics = self._loss(batch, clip_range, clip_range_vf)
                kl_divergences.append(batch_statistics["approx_kl"])
                gradient.zero()
                loss.backward()  # type: ignore[no-untyped-call]
                batch_statistics["gradient_norm"] = gradient.clip(self.max_grad_norm)
                self.policy.optimizer.step()
                for name, value in batch_statistics.items():
                    statistics[name].append(value)
            self._n_updates += 1
            if (
                self.target_kl is not None
                and torch.stack(kl_divergences).mean() > 1.5 * self.target_kl
            ):
                break

        if not torch.stack(statistics["gradient_norm"]).isfinite().all():
            raise TrainingDivergedError(self.num_timesteps)
        for name, values in statistics.items():
            self.logger.record(f"train/{name}", torch.stack(values).mean().item())
        if own.any():
            self.logger.record(
                "train/explained_variance",
                explained_variance(
                    rollout.values[own].cpu().numpy(), rollout.returns[own].cpu().numpy()
                ),
            )
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)

    def _loss(
        self, batch: Minibatch, clip_range: float, clip_range_vf: float | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Replay a minibatch; see :func:`~relagent.rl.loss.ppo_loss`."""
        assert self.rollout is not None
        with self.policy.telling_apart(self.rollout.recall):
            evaluated = self.policy.evaluate_actions(
                batch.observations, batch.actions, batch.start_state, batch.episode_starts
            )
        return ppo_loss(
            batch,
            *evaluated,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
        )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MemoryPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> MemoryPPO:
        """Train for ``total_timesteps`` environment steps; see stable-baselines3."""
        self.rollout_buffer = cast(Any, None)  # the base class passes it on; it is not used here
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    # Both copy, since an environment may write its next step into the same arrays.
    def _to_tensor(self, array: Any) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _to_tensors(self, observations: Any) -> Any:
        return obs_as_tensor(deepcopy(observations), self.device)

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the model as one safetensors file that runs no code when it is loaded.

        Args:
            path: the file; ``.safetensors`` is added where there is no suffix.
            exclude: not offered.
            include: not offered.

        Raises:
            PPOOptionError: something else than a path, or a choice of parts, was given.
            CheckpointWriteError: the file cannot be written.
        """
        if isinstance(path, io.IOBase) or exclude is not None or include is not None:
            raise PPOOptionError(
                "save() takes the path of a file and saves everything: pass a path"
            )
        tensors, data = pack(model_state(self))
        save_file(_with_suffix(cast(Any, path)), tensors, {"model": data})

    @classmethod
    def load(  # type: ignore[override]  # a file that is open already is not taken
        cls,
        path: str | Path,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **arguments: Any,
    ) -> MemoryPPO:
        """Load a saved model.

        Args:
            path: the file; or a run directory, for its newest checkpoint.
            env: where to train on; its spaces must be the model's. ``None``: only to predict.
            device: where to put it.
            custom_objects: what could not be stored without code: ``policy_class``,
                ``policy_kwargs``, or a schedule that is a function; others are ignored.
            print_system_info: print versions and machine.
            force_reset: start new episodes when training goes on.
            arguments: arguments of the class to change, or that could not be stored.

        Raises:
            CheckpointDamagedError: not a saved model, or a damaged one.
            ModelMismatchError: the spaces do not fit, or something is missing.
        """
        if print_system_info:
            get_system_info()
        if Path(path).is_dir():
            state = read_training(RunDirectory.open(path))[0]["model"]
        else:
            tensors, data = load_file(_with_suffix(path))
            if "model" not in data:
                raise CheckpointDamagedError(Path(path), "it holds no model")
            state = unpack(tensors, data["model"])
        options = model_arguments(state, custom_objects or {}, arguments)
        model = cls(env=cast(Any, env), device=device, _init_setup_model=False, **options)
        if env is None:
            model.observation_space = space_of(state["observation_space"])
            model.action_space = space_of(state["action_space"])
            model.n_envs = state["n_envs"]
        else:
            check_spaces(state, model.observation_space, model.action_space)
        model._setup_model()
        restore_model(model, state)
        if force_reset:
            model._last_obs = model._last_state = None
        return model


def _made(env: GymEnv | str | None, seed: int | None) -> Any:
    """Make the environment of an id; check one that is made already."""
    if isinstance(env, str):
        drawn = np.random.SeedSequence().generate_state(1)[0]
        return make_vec_env(env, 1, int(drawn) if seed is None else seed)
    if env is not None:
        name = getattr(getattr(env, "spec", None), "id", type(env).__name__)
        check_space(name, env.observation_space)
    return env


def _with_suffix(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_suffix(".safetensors")
