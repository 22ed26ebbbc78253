"""Proximal policy optimisation of a policy that remembers."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
    explained_variance,
    get_system_info,
)
from torch import Tensor

from relagent.errors import RelagentError
from relagent.rl.acting import MemoryAlgorithm, ModelOptionError
from relagent.rl.checkpoint import (
    check_spaces,
    check_trainable,
    model_arguments,
    model_state,
    not_fitting,
    read_training,
    restore_model,
    space_of,
)
from relagent.rl.gradient import JointGradient
from relagent.rl.loss import ppo_loss
from relagent.rl.policy import (
    MemoryPolicy,
)
from relagent.rl.rollout import Minibatch
from relagent.runs.checkpoint import CheckpointDamagedError, load_file, save_file
from relagent.runs.directory import RunDirectory
from relagent.runs.packing import pack, unpack


class TrainingDivergedError(RelagentError):
    """An update whose gradient is no finite number: the policy is of no use any more."""

    def __init__(self, steps: int) -> None:
        super().__init__(
            f"training diverged by step {steps:,}: the gradient is no finite number; look for such "
            "numbers in rewards and observations, or choose a smaller learning rate"
        )


class MemoryPPO(MemoryAlgorithm):
    """PPO (Schulman et al. 2017) with any memory of the registry.

    It takes the arguments of sb3-contrib's ``RecurrentPPO``, in the same order, and is used the
    same way::

        model = MemoryPPO("RelLstmPolicy", env, policy_kwargs=dict(memory_kwargs=dict(nu=5, rho=5)))
        model.learn(500_000)
        action, state = model.predict(obs, state, episode_start)

    How it acts is in :class:`~relagent.rl.acting.MemoryAlgorithm`. Minibatches take whole
    environments, so gradients reach back through the whole rollout, and to its start exactly.

    Different are the defaults of ``learning_rate``, ``batch_size``, ``n_epochs`` and ``ent_coef``;
    advantages are normalised over the rollout, not over each minibatch; ``target_kl`` is looked at
    after an epoch, not after a minibatch; the state that ``predict`` returns is batch first.

    Args:
        policy: ``"RelLstmPolicy"``, ``"MemLstmPolicy"``, ``"LstmPolicy"``, ``"GruPolicy"``,
            ``"NoMemoryPolicy"``, ``"MemoryPolicy"`` (any memory, named in its options), or a
            subclass of :class:`~relagent.rl.policy.MemoryPolicy`.
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
        target_kl: no further epoch when the approximate KL divergence, on average over an epoch's
            minibatches, passes 1.5 times this.
        policy_kwargs: options of the policy.
        exploring_starts: open an episode, with probability 1/2, with up to this many random
            actions, see :class:`~relagent.rl.exploring.ExploringStarts`.

    Raises:
        ModelOptionError: an impossible setting, or an unknown policy.
        PolicyOptionError, MemoryOptionError, EncoderError: an impossible option of the policy.
        ExploringStartsError: exploring starts that cannot be.
        UnsupportedSpaceError, UnknownEnvironmentError: an environment that no agent can act in.
            All of these are :class:`~relagent.errors.RelagentError`.
    """

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
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | Path | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        exploring_starts: int = 0,
    ) -> None:
        counts: dict[str, Any] = {
            "n_steps": n_steps,
            "batch_size": batch_size,
            "n_epochs": n_epochs,
            "stats_window_size": stats_window_size,
        }
        for name, value in counts.items():
            if not isinstance(value, Integral) or value < 1:
                raise ModelOptionError(
                    f"{name}={value!r} cannot work: use a whole number of at least 1"
                )
        ranges: dict[str, tuple[Any, float, float]] = {
            "gamma": (gamma, 0, 1),
            "gae_lambda": (gae_lambda, 0, 1),
            "ent_coef": (ent_coef, -math.inf, math.inf),
            "vf_coef": (vf_coef, 0, math.inf),
            "max_grad_norm": (max_grad_norm, 0, math.inf),
        }
        for name, (number, least, most) in ranges.items():
            # The comparison is not true of NaN.
            if not (isinstance(number, int | float | np.number) and least <= number <= most):
                which = f"{least} to {most}" if least > -math.inf else "a number"
                raise ModelOptionError(f"{name}={number!r} cannot work: use {which}")
        limits: dict[str, Any] = {
            "learning_rate": learning_rate,
            "clip_range": clip_range,
            "clip_range_vf": clip_range_vf,
            "target_kl": target_kl,
        }
        for name, limit in limits.items():
            left_out = limit is None and name in ("clip_range_vf", "target_kl")
            schedule = callable(limit) and name != "target_kl"
            if left_out or schedule:
                continue
            if not (isinstance(limit, int | float | np.number) and limit > 0):
                raise ModelOptionError(f"{name}={limit!r} cannot work: use more than 0")
        super().__init__(
            policy,
            env,
            exploring_starts=exploring_starts,
            learning_rate=_plain(learning_rate),
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            stats_window_size=stats_window_size,
            tensorboard_log=None if tensorboard_log is None else str(tensorboard_log),
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = _plain(clip_range)
        self.clip_range_vf = _plain(clip_range_vf)
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        # The last rollout may go beyond the end, where a schedule would have another sign.
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

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
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

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
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

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
            ModelOptionError: something else than a path, or a choice of parts, was given.
            CheckpointWriteError: the file cannot be written.
        """
        if isinstance(path, io.IOBase) or exclude is not None or include is not None:
            raise ModelOptionError(
                "save() takes the path of a file and saves everything: pass a path"
            )
        tensors, data = pack(model_state(self))
        save_file(_with_suffix(cast(Any, path)), tensors, {"model": data})

    def set_parameters(
        self,
        load_path_or_dict: str | Path | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take the weights, and the optimiser's state, of another model of the same kind.

        Args:
            load_path_or_dict: a saved model or a run directory, as :meth:`load` takes it; or what
                ``get_parameters`` returned.
            exact_match: whether nothing may be left out.
            device: where to read them.

        Raises:
            CheckpointDamagedError: not a saved model, or a damaged one.
            ModelMismatchError: only a policy was kept there, or it is of another kind; nothing was
                taken then.
        """
        if not isinstance(load_path_or_dict, dict):
            state = _saved(load_path_or_dict)
            check_trainable(state)
            load_path_or_dict = {
                "policy": state["parameters"],
                "policy.optimizer": state["optimizer"],
            }
        before: Any = deepcopy(self.get_parameters())
        try:
            super().set_parameters(load_path_or_dict, exact_match, device)
        except (RuntimeError, ValueError) as error:
            super().set_parameters(before)
            raise not_fitting(error) from error

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
            path: the file, as :meth:`save` took it; or a run directory, for its newest checkpoint.
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
            ModelOptionError: there are both, a folder and a file, of that name; or a file that is
                open was given.
        """
        if print_system_info:
            get_system_info()
        state = _saved(path)
        options = model_arguments(state, custom_objects or {}, arguments)
        model = cls(env=cast(Any, env), device=device, _init_setup_model=False, **options)
        if env is None:
            model.n_envs = state["n_envs"]
        else:
            check_spaces(state, model.observation_space, model.action_space)
        # With an environment, too: its Dict may have the same parts in another order.
        model.observation_space = space_of(state["observation_space"])
        model.action_space = space_of(state["action_space"])
        model._setup_model()
        restore_model(model, state)
        if force_reset:
            model._last_obs = model._last_state = None
        return model


def _plain(number: Any) -> Any:
    """A number of NumPy's as Python's own, which stable-baselines3 asks for; all else as it is."""
    return number.item() if isinstance(number, np.number) else number


def _saved(path: str | Path) -> dict[str, Any]:
    """What :func:`model_state` told of a saved model, or of a run's newest checkpoint."""
    if isinstance(path, io.IOBase):
        raise ModelOptionError("a model is loaded from the path of its file: pass a path")
    file = _with_suffix(path)
    if Path(path).is_dir():
        if file.is_file():
            raise ModelOptionError(
                f"{path} is a folder, and {file} a saved model: name the file with its suffix, "
                "or rename one of them"
            )
        return cast("dict[str, Any]", read_training(RunDirectory.open(path))[0]["model"])
    tensors, data = load_file(file)
    if "model" not in data:
        raise CheckpointDamagedError(
            Path(path), "it holds no saved model; of a run, give the folder of the run"
        )
    return cast("dict[str, Any]", unpack(tensors, data["model"]))


def _with_suffix(path: str | Path) -> Path:
    """The file of a model: stable-baselines3's callbacks name it ``.zip``, which it is not."""
    path = Path(path)
    return path.with_suffix(".safetensors") if path.suffix in ("", ".zip") else path
