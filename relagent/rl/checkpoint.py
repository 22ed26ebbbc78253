"""A model as a tree of tensors and plain values, and back; nothing of it can run code."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from relagent.errors import RelagentError
from relagent.memories import make_state
from relagent.runs.checkpoint import Checkpoint
from relagent.runs.directory import RunDirectory
from relagent.runs.packing import PackError, pack
from relagent.runs.resuming import read_checkpoint

if TYPE_CHECKING:
    from relagent.rl.policy import MemoryPolicy
    from relagent.rl.ppo import MemoryPPO
    from relagent.rl.train import TrainConfig


class ModelMismatchError(RelagentError):
    """A saved model that does not fit what it is to be used with."""


_ARGUMENTS = (
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "normalize_advantage",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "exploring_starts",
    "target_kl",
    "seed",
    "tensorboard_log",
    "verbose",
)
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
_STORED = {
    "policy",
    "policy_class",
    "policy_kwargs",
    "stats_window_size",
    *_ARGUMENTS,
    *_SCHEDULES,
}
_COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
)


def model_state(model: MemoryPPO) -> dict[str, Any]:
    """Return everything of a model: what it was made from, what it learned, where it stands.

    What cannot be stored without code (a policy class of one's own, a schedule that is a function)
    is left out by name and must be given again on loading.
    """
    aliases = {policy: name for name, policy in model.policy_aliases.items()}
    missing = []
    policy = aliases.get(cast(Any, model.policy_class))
    if policy is None:
        missing.append("policy_class")
    policy_kwargs: Any = model.policy_kwargs
    try:
        pack(policy_kwargs)
    except PackError:
        policy_kwargs = None
        missing.append("policy_kwargs")
    schedules = {}
    for name in _SCHEDULES:
        try:
            schedules[name] = _schedule_state(getattr(model, name))
        except TypeError:
            missing.append(name)
    return {
        "policy": policy,
        "policy_kwargs": policy_kwargs,
        "arguments": {
            **{name: getattr(model, name) for name in _ARGUMENTS},
            "stats_window_size": model._stats_window_size,
        },
        "schedules": schedules,
        "missing": missing,
        "observation_space": space_state(model.observation_space),
        "action_space": space_state(model.action_space),
        "n_envs": model.n_envs,
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "parameters": dict(model.policy.state_dict()),
        "optimizer": model.policy.optimizer.state_dict(),
        "memory": model._last_state,
        "observations": model._last_obs,
        "episode_starts": model._last_episode_starts,
        "exploring": model._exploring.left,
        "episodes": [
            {"r": float(episode["r"]), "l": int(episode["l"])}
            for episode in model.ep_info_buffer or ()
        ],
        "successes": [float(success) for success in model.ep_success_buffer or ()],
    }


def restore_model(model: MemoryPPO, state: dict[str, Any]) -> None:
    """Give a freshly made model of the same kind everything that :func:`model_state` took.

    Raises:
        ModelMismatchError: the spaces or the parameters do not fit, or only a policy was kept.
    """
    check_trainable(state)
    check_spaces(state, model.observation_space, model.action_space)
    _load_parameters(model.policy, state)
    model.policy.optimizer.load_state_dict(state["optimizer"])
    for name in _COUNTERS:
        setattr(model, name, state["counters"][name])
    window = model._stats_window_size
    model.ep_info_buffer = deque(({**e, "t": 0.0} for e in state["episodes"]), maxlen=window)
    model.ep_success_buffer = deque(state["successes"], maxlen=window)
    if state["memory"] is not None and model.n_envs == state["n_envs"]:
        parts = (part.to(model.device) for part in state["memory"])
        model._last_state = make_state(model.policy.initial_state(1), parts)
        model._last_obs = state["observations"]
        model._last_episode_starts = state["episode_starts"]
        model._exploring.left = state["exploring"]


def check_trainable(state: dict[str, Any]) -> None:
    """Check that a saved model is one that training can go on from.

    Raises:
        ModelMismatchError: only its policy was kept.
    """
    if "optimizer" not in state:
        raise ModelMismatchError(
            "this is a policy to be played, not the state of a training: load it with "
            "relagent.rl.load_policy, or train a new run"
        )


def check_spaces(
    state: dict[str, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> None:
    """Check that a saved model can be used with an environment of these spaces.

    Raises:
        ModelMismatchError: it cannot; says which space differs.
    """
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        saved = space_of(state[name])
        if saved != space:
            raise ModelMismatchError(
                f"the {name.replace('_', ' ')} does not fit: the model was made for "
                f"{in_words(saved)}, the environment has {in_words(space)}; use an environment "
                "of the same kind"
            )


def in_words(space: spaces.Space[Any]) -> str:
    """Return a space in one line: bounds that differ from element to element are left out."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{name}: {in_words(part)}' for name, part in space.items())})"
    if isinstance(space, spaces.Box) and "\n" in str(space):
        return f"Box({space.shape}, {space.dtype})"
    return str(space)


def model_arguments(
    state: dict[str, Any],
    custom_objects: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the arguments that make a model like the saved one.

    Args:
        state: of :func:`model_state`.
        custom_objects: arguments that could not be stored; others that were not either are ignored.
        changes: arguments instead of the stored ones.

    Raises:
        ModelMismatchError: something that was not stored is not given.
    """
    known = {
        "policy_class": state["policy"],
        "policy_kwargs": state["policy_kwargs"],
        **state["arguments"],
        **{name: _schedule_of(value) for name, value in state["schedules"].items()},
    }
    given = {name: v for name, v in (custom_objects or {}).items() if name in _STORED}
    given |= changes or {}
    if "policy" in given:
        given["policy_class"] = given.pop("policy")
    lacking = [name for name in state["missing"] if name not in given]
    if lacking:
        raise ModelMismatchError(
            f"{', '.join(lacking)} could not be stored with the model: pass "
            f"custom_objects=dict({lacking[0]}=...), whole, as the model was made with"
        )
    arguments = known | given
    return {"policy": arguments.pop("policy_class"), **arguments}


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy out of a run directory."""

    policy: MemoryPolicy
    config: TrainConfig
    """The run's settings."""
    steps: int
    """Environment steps it was trained for."""
    backend: str
    """What its worlds were simulated by."""
    checkpoint: Path
    """The file that it came from."""


def load_policy(run: Path | str, device: str = "cpu") -> LoadedPolicy:
    """Load the newest usable policy of a run, without making an environment.

    Raises:
        RelagentError: no run there, its settings are not those of its newest checkpoint, or none of
            its checkpoints can be used; one line says which.
    """
    from relagent.rl.train import read_train_config

    directory = RunDirectory.open(run)
    config = read_train_config(directory)
    state, checkpoint = read_training(directory, config)
    return LoadedPolicy(
        policy=make_policy(state["model"], device),
        config=config,
        steps=checkpoint.step,
        backend=state["backend"],
        checkpoint=checkpoint.path,
    )


def read_training(
    run: RunDirectory, config: TrainConfig | None = None
) -> tuple[dict[str, Any], Checkpoint]:
    """Return the newest usable checkpoint of an agent's run as a tree.

    Args:
        run: the run.
        config: its settings, if they are used: see :func:`relagent.runs.resuming.read_checkpoint`.

    Raises:
        CheckpointError: there is none.
        ModelMismatchError: it is of a run of another kind.
        RunDamagedError: it was made with other settings.
    """
    state, checkpoint = read_checkpoint(run, config)
    if not isinstance(state.get("model"), dict) or "policy" not in state["model"]:
        raise ModelMismatchError(f"{checkpoint.path} holds no agent: give the folder of an agent")
    return state, checkpoint


def make_policy(state: dict[str, Any], device: str = "cpu") -> MemoryPolicy:
    """Make the policy of a saved model, ready to act.

    Raises:
        ModelMismatchError: its class or options could not be stored.
    """
    from relagent.rl.ppo import MemoryPPO

    arguments = model_arguments(state)
    policy_class = cast("type[MemoryPolicy]", MemoryPPO.policy_aliases[arguments["policy"]])
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
        policy = policy_class(
            space_of(state["observation_space"]),
            space_of(state["action_space"]),
            lambda _: 0.0,
            **(arguments["policy_kwargs"] or {}),
        ).to(device)
    _load_parameters(policy, state)
    if not all(parameter.isfinite().all() for parameter in policy.parameters()):
        raise ModelMismatchError(
            "the saved parameters are no finite numbers: training diverged; train a new run"
        )
    policy.set_training_mode(False)
    return policy


def _load_parameters(policy: MemoryPolicy, state: dict[str, Any]) -> None:
    try:
        policy.load_state_dict(state["parameters"])
    except RuntimeError as error:
        raise not_fitting(error) from error


def not_fitting(error: Exception) -> ModelMismatchError:
    """What to raise where torch finds that parameters are of another model."""
    return ModelMismatchError(
        "the saved parameters do not fit this policy "
        f"({str(error).splitlines()[-1].strip()}); use the options it was made with"
    )


def _schedule_state(schedule: Any) -> Any:
    if isinstance(schedule, FloatSchedule):
        schedule = schedule.value_schedule
    if isinstance(schedule, ConstantSchedule):
        return schedule.val
    if isinstance(schedule, LinearSchedule):
        return {"linear": [schedule.start, schedule.end, schedule.end_fraction]}
    if schedule is None or isinstance(schedule, int | float):
        return schedule
    raise TypeError("a function cannot be stored")


def _schedule_of(state: Any) -> Any:
    return LinearSchedule(*state["linear"]) if isinstance(state, dict) else state


def space_state(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return a space as plain values and arrays.

    Raises:
        ModelMismatchError: a kind of space that agents here do not take.
    """
    match space:
        case spaces.Dict():
            return {"dict": {name: space_state(part) for name, part in space.spaces.items()}}
        case spaces.Box():
            return {"box": [space.low, space.high]}
        case spaces.Discrete():
            return {"discrete": [int(space.n), int(space.start), str(space.dtype)]}
        case spaces.MultiDiscrete():
            return {"multi_discrete": space.nvec}
        case spaces.MultiBinary():
            return {"multi_binary": np.asarray(space.n).tolist()}
    raise ModelMismatchError(
        f"{space} cannot be stored: use Dict, Box, Discrete, MultiDiscrete or MultiBinary"
    )


def space_of(state: dict[str, Any]) -> spaces.Space[Any]:
    """Return the space that :func:`space_state` described."""
    ((kind, value),) = state.items()
    match kind:
        case "dict":
            # In the model's own order, which its weights know: a plain dict would be sorted.
            return spaces.Dict([(name, space_of(part)) for name, part in value.items()])
        case "box":
            return spaces.Box(value[0], value[1], dtype=value[0].dtype.type)
        case "discrete":
            n, start, *dtype = value
            return spaces.Discrete(n, start=start, dtype=np.dtype(*dtype or ["int64"]).type)
        case "multi_discrete":
            return spaces.MultiDiscrete(value, dtype=value.dtype.type)
        case "multi_binary":
            return spaces.MultiBinary(value)
    raise ModelMismatchError(f"unknown kind of space {kind!r} in a saved model")
