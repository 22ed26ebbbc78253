"""Train an agent: settings in, a run directory out.

An interrupted and resumed run equals the uninterrupted one bit for bit on a CPU. Weights,
optimiser, memories, counters and random streams are stored; worlds cannot be, so they are led back
to where they were by their seed and the actions since (:mod:`relagent.rl.worlds`). At each regular
checkpoint, in every run, all worlds start anew from a seed hashed from the run's seed and the step:
that keeps the record short.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import LinearSchedule, safe_mean
from torch.utils.tensorboard import SummaryWriter

from relagent.envs import (
    ImpairedSightVecEnv,
    Impairments,
    UnsupportedSpaceError,
    backend_of,
    check_parts,
    episode_limit,
    make_env,
    make_vec_env,
)
from relagent.envs.make import Backend
from relagent.memories import MEMORIES, check_memory, options_of, takers_of
from relagent.memories.attention import Combine
from relagent.rl.callbacks import AttentionCallback, CheckpointCallback, ProgressCallback
from relagent.rl.checkpoint import model_state, read_training, restore_model
from relagent.rl.encoder import is_grid_space
from relagent.rl.ppo import MemoryPPO
from relagent.rl.worlds import ReplayableVecEnv
from relagent.runs.config import Config, ConfigError, check_seed, check_threads, option, to_json
from relagent.runs.device import computing_device
from relagent.runs.directory import RunDirectory, RunError, default_run_path
from relagent.runs.packing import pack
from relagent.runs.progress import TrainingProgress
from relagent.runs.provenance import provenance
from relagent.runs.random_states import random_states, restore_random_states
from relagent.runs.resuming import (
    ResumeError,
    changed_options,
    config_for_resume,
    deciding_settings,
)


@dataclass(frozen=True)
class TrainConfig(Config):
    """Everything that decides what a run learns."""

    env: str = option(help="World to train on: any MiniGrid, BabyAI or other Gymnasium id.")
    memory: str = option("rel", f"Memory of the agent: one of {', '.join(MEMORIES)}.")
    steps: int = option(5_000_000, "Environment steps to train for.", role="budget")
    seed: int = option(0, "Seed of weights, worlds and actions.")
    n_envs: int = option(64, "Worlds that are played at the same time.")
    nu: int = option(5, f"Length of the short-term buffer: the last ν states ({takers_of('nu')}).")
    rho: int = option(
        5, f"Size of the relevant set: the ρ most relevant states ({takers_of('rho')})."
    )
    combine: Combine = option(
        "sum", f"How hidden state and context make the macro-state ({takers_of('combine')})."
    )
    hidden_size: int = option(64, "Size of the memory's hidden state.")
    learning_rate: float = option(5e-4, "Step size of Adam.")
    learning_rate_end: float | None = option(
        None, "Anneal the step size linearly to this value; none keeps it constant."
    )
    n_steps: int = option(128, "Steps of each world between two updates.")
    batch_size: int = option(512, "Transitions in a minibatch; whole worlds are taken.")
    n_epochs: int = option(4, "Passes over each rollout.")
    gamma: float = option(0.99, "Discount of future rewards.")
    gae_lambda: float = option(0.95, "λ of generalised advantage estimation.")
    clip_range: float = option(0.2, "Clip range of the policy's ratio.")
    normalize_advantage: bool = option(
        False,
        "Scale each rollout's advantages to mean 0 and deviation 1; without, the entropy bonus "
        "keeps its weight when there is little left to win.",
    )
    ent_coef: float = option(0.006, "Weight of the entropy bonus.")
    vf_coef: float = option(0.5, "Weight of the value loss.")
    max_grad_norm: float = option(0.5, "The gradient's norm is clipped to this.")
    exploring_starts: int = option(
        64,
        "Open a training episode in a grid world, with probability 1/2, with up to this many "
        "random actions.",
    )
    short_sight: float = option(
        0.5,
        "Share of the training episodes in which a grid's view reaches less far. Such episodes "
        "count in no score that training logs, nor do those of the next two.",
    )
    blind_spells: float = option(
        0.0, "Share of the training episodes with spells in which a grid's view shows nothing."
    )
    dead_cells: float = option(
        0.0, "Share of the training episodes in which some places of a grid's view show nothing."
    )
    parts: tuple[str, ...] | None = option(
        None,
        "Parts of a grid observation: image, direction, previous_action, mission; none takes all, "
        "the mission where it varies.",
    )
    backend: Backend = option("auto", "What simulates the worlds.")
    checkpoint_every: int = option(
        250_000,
        "Environment steps between two checkpoints. All worlds start new episodes at each, and the "
        "ones that were running count in no score: leave room for many episodes in between.",
    )
    device: str = option(
        "cpu",
        "Where to compute: auto, cpu or cuda. At the usual sizes a core of a CPU is faster than a "
        "GPU.",
        role="machine",
    )
    threads: int = option(
        1,
        "Threads to compute with; at the usual sizes a second one costs more than it gives.",
        role="machine",
    )

    def __post_init__(self) -> None:
        """Check what can be checked without making anything."""
        super().__post_init__()
        for name in (
            "steps",
            "n_envs",
            "hidden_size",
            "n_steps",
            "batch_size",
            "n_epochs",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "it must be at least 1")
        check_seed(self.seed)
        check_threads(self.threads)
        for name in ("ent_coef", "vf_coef", "learning_rate_end", "exploring_starts"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(name, getattr(self, name), "it must not be negative")
        for name in ("learning_rate", "clip_range", "max_grad_norm", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, getattr(self, name), "it must be more than 0")
        for name in ("gamma", "gae_lambda", *Impairments._fields):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(name, getattr(self, name), "it must be between 0 and 1")
        if self.parts is not None and "image" not in check_parts(self.parts):
            raise ConfigError("parts", self.parts, "image must be among them")
        check_memory(self.memory, **self.memory_options)  # says at once what would be said later
        MEMORIES[self.memory].check_hidden_size(self.hidden_size)

    @property
    def memory_options(self) -> dict[str, Any]:
        """The options that the chosen memory takes."""
        taken = options_of(self.memory)
        return {name: getattr(self, name) for name in MEMORY_OPTIONS if name in taken}

    def check_effect(self, given: Mapping[str, Any]) -> None:
        """Refuse what was asked for and would change nothing.

        Args:
            given: the settings that the user named.

        Raises:
            ConfigError: memory or world have no such option, or a minibatch would be larger.
        """
        for name in MEMORY_OPTIONS:
            if name in given and name not in self.memory_options:
                raise ConfigError(name, given[name], f"{self.memory} takes none: leave it out")
        if "batch_size" in given and self.batch_size < self.n_steps:
            rule = f"minibatches take whole worlds of {self.n_steps} steps: ask for that or more"
            raise ConfigError("batch_size", self.batch_size, rule)
        of_grids = ("exploring_starts", "short_sight", "blind_spells", "dead_cells")
        asked = [name for name in of_grids if given.get(name)]
        if asked:
            world = make_env(self.env)
            world.close()
            if not is_grid_space(world.observation_space):
                rule = f"{self.env} is no grid world: leave it out"
                raise ConfigError(asked[0], given[asked[0]], rule)


MEMORY_OPTIONS = ("combine", "nu", "rho")
"""Settings that a memory is made with, if it takes them."""


def train(
    config: TrainConfig, path: Path | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Train from the beginning.

    Args:
        config: what to learn, and how.
        path: the run directory to make; by default one under ``runs/``, named after the settings.
        stop: polled between rollouts; true saves and ends.

    Returns:
        Whether training went to its end (it may have been asked to stop).

    Raises:
        RelagentError: something that the user can mend; one line says what.
    """
    model, worlds = make_model(config)
    where = provenance(device=str(model.device), backend=backend_of(worlds))
    path = path or default_run_path(config.env, config.memory, config.seed)
    with RunDirectory.create(path, config, where) as run:
        _note_short_intervals(config)
        _begin_worlds(model, worlds, config.seed)
        return _learn(config, model, worlds, run, stop)


SHORTEST_INTERVAL = 4
"""Longest episodes that should fit between two checkpoints."""


def _note_short_intervals(config: TrainConfig) -> None:
    """Tell where checkpoints cut off so many episodes that the scores of the others mislead."""
    world = make_env(config.env)
    world.reset(seed=config.seed)
    limit = episode_limit(world)
    world.close()
    least = SHORTEST_INTERVAL * config.n_envs * (limit or 0)
    if config.checkpoint_every < min(least, config.steps):
        print(
            f"warning: in {config.checkpoint_every:,} steps from checkpoint to checkpoint there is "
            f"no room for {SHORTEST_INTERVAL} episodes of {limit} steps in {config.n_envs} worlds: "
            "long ones are cut off and count in no score, so that the logged scores are too good; "
            f"--checkpoint-every {least} gives them room",
            file=sys.stderr,
        )


def read_train_config(run: RunDirectory) -> TrainConfig:
    """Return the settings of an agent's run.

    Raises:
        RunError: it is a supervised run.
        RunDamagedError: they cannot be read.
    """
    settings = run.read_settings()
    task, path = settings.get("task"), shlex.quote(str(run.path))
    if isinstance(task, str) and "env" not in settings:
        raise RunError(
            f"{run.path} is a run of the task {task}, not of an agent: python -m relagent.tasks "
            f"{task} --resume {path} goes on with it"
        )
    return run.read_config(TrainConfig)


def resume(
    path: Path, changes: dict[str, Any] | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Go on with a run from its newest usable checkpoint.

    Args:
        path: the run directory.
        changes: new values of ``steps``, ``device`` or ``threads``; all else stays as it was.
        stop: see :func:`train`.

    Returns:
        Whether training went to its end.

    Raises:
        RelagentError: something that the user can mend; one line says what.
    """
    known = read_train_config(RunDirectory.open(path))
    config = config_for_resume(known, changes or {})
    if config.steps != known.steps and config.learning_rate_end is not None:
        print(
            f"warning: the step size was to be annealed over {known.steps:,} steps, now over "
            f"{config.steps:,}: it jumps, and the run is like none of either length",
            file=sys.stderr,
        )
    model, worlds = make_model(config)
    where = provenance(device=str(model.device), backend=backend_of(worlds))
    with RunDirectory.open_for_resume(path) as run:
        if not run.saved:
            run.rewind(0, where)
            _begin_worlds(model, worlds, config.seed)
            return _learn(config, model, worlds, run, stop)
        state, checkpoint = read_training(run, known)
        restore_model(model, state["model"])
        simulator, before = (name.split()[0] for name in (backend_of(worlds), state["backend"]))
        if simulator != before or not _equal(
            worlds.replay(state["worlds"]), state["model"]["observations"]
        ):
            raise ResumeError(
                f"{config.env} did not come back to where it was (simulated by "
                f"{backend_of(worlds)}, saved with {state['backend']}): resume with the versions "
                "in provenance.json; a world of one's own must depend on its seed and on the "
                "actions of the episode alone"
            )
        run.rewind(checkpoint.step, where)
        restore_random_states(state["random"])
        return _learn(config, model, worlds, run, stop, state["pending"])


def make_model(config: TrainConfig) -> tuple[MemoryPPO, ReplayableVecEnv]:
    """Return an untrained model with these settings, and the worlds that it acts in.

    Raises:
        UnsupportedSpaceError: pictures with channels last.
        RelagentError: another setting that cannot work.
    """
    torch.set_num_threads(config.threads)
    venv = make_vec_env(
        config.env,
        config.n_envs,
        config.seed,
        backend=config.backend,
        parts=config.parts,
    )
    grid = is_grid_space(venv.observation_space)
    impairments = Impairments(config.short_sight, config.blind_spells, config.dead_cells)
    if grid and any(impairments):
        venv = ImpairedSightVecEnv(venv, impairments, config.seed)
    worlds = ReplayableVecEnv(venv)
    rate: Any = config.learning_rate
    if config.learning_rate_end is not None:
        rate = LinearSchedule(config.learning_rate, config.learning_rate_end, 1.0)
    model = MemoryPPO(
        "MemoryPolicy",
        worlds,
        learning_rate=rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        normalize_advantage=config.normalize_advantage,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        exploring_starts=config.exploring_starts if grid else 0,
        policy_kwargs={
            "memory": config.memory,
            "memory_kwargs": config.memory_options,
            "hidden_size": config.hidden_size,
        },
        seed=config.seed,
        device=computing_device(config.device),
    )
    if model.get_env() is not worlds:
        # stable-baselines3 turns such pictures, outside of the worlds that are begun here.
        raise UnsupportedSpaceError(
            f"{config.env} observes pictures with channels last ({worlds.observation_space}): "
            "train on it by relagent.rl.MemoryPPO, or register a world with channels first"
        )
    return model, worlds


def _begin_worlds(model: MemoryPPO, worlds: ReplayableVecEnv, seed: int) -> None:
    """Start new episodes in all worlds, with empty memories."""
    mixed = np.random.SeedSequence([seed, model.num_timesteps]).generate_state(1)[0]
    model.begin_episodes(worlds.restart(int(mixed) % 2**30))


def _learn(
    config: TrainConfig,
    model: MemoryPPO,
    worlds: ReplayableVecEnv,
    run: RunDirectory,
    stop: Callable[[], bool] | None,
    pending: dict[str, Any] | None = None,
) -> bool:
    board = _TensorBoard(run.path / "tensorboard", first_step=model.num_timesteps + 1)
    logger = Logger(str(run.path), [_Metrics(run), board])
    model.set_logger(logger)
    if pending is None:
        settings = {name: str(value) for name, value in to_json(config).items()}
        logger.record("hparams", HParam(settings, {"rollout/ep_rew_mean": 0.0}), exclude="metrics")
    for name, value in (pending or {}).items():
        logger.record(name, value["value"], exclude=tuple(value["exclude"]))

    def save(regular: bool) -> None:
        if regular:
            _begin_worlds(model, worlds, config.seed)
        state = {
            "model": model_state(model),
            "worlds": worlds.snapshot(),
            "random": random_states(),
            "backend": backend_of(worlds),
            "settings": deciding_settings(config),
            "pending": _pending(logger),
        }
        tensors, data = pack(state)
        run.save_checkpoint(model.num_timesteps, tensors, data)

    checkpoints = CheckpointCallback(config.checkpoint_every, save, stop or (lambda: False))
    print(f"run directory: {run.path}", file=sys.stderr, flush=True)
    unfinished = model.num_timesteps < config.steps
    try:
        if unfinished:
            with TrainingProgress(config.steps, model.num_timesteps, "steps") as progress:
                model.learn(
                    config.steps - model.num_timesteps,
                    CallbackList([checkpoints, AttentionCallback(), ProgressCallback(progress)]),
                    reset_num_timesteps=False,
                )
        if checkpoints.stopped:
            print(
                f"stopped after {checkpoints.saved_at:,} steps; go on with: "
                f"python train_rl.py --resume {shlex.quote(str(run.path))}"
                f"{changed_options(run, config)}",
                file=sys.stderr,
            )
            return False
        # A regular checkpoint that is due is made now, as it would be if training went on.
        save(unfinished and checkpoints.due)
    finally:
        logger.close()
        worlds.close()
    print(f"trained for {model.num_timesteps:,} steps{_summary(model)}", file=sys.stderr)
    print(f"next: python evaluate_transfer.py {shlex.quote(str(run.path))}", file=sys.stderr)
    return True


def _summary(model: MemoryPPO) -> str:
    episodes = model.ep_info_buffer
    if not episodes:
        return ""
    reward = safe_mean([episode["r"] for episode in episodes])
    return f"; mean reward of the last {len(episodes)} episodes {reward:.3f}"


def _pending(logger: Logger) -> dict[str, Any]:
    """Return what was recorded and not yet written: an update's figures are, until the next row."""
    return {
        name: {"value": value, "exclude": list(logger.name_to_excluded[name] or ())}
        for name, value in _numbers(logger.name_to_value).items()
    }


def _numbers(values: dict[str, Any]) -> dict[str, int | float]:
    """Return those values that are numbers, as Python's own."""
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in values.items()}
    return {name: value for name, value in plain.items() if isinstance(value, int | float)}


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return np.array_equal(left, right)


class _Metrics(KVWriter):
    """The run's metrics file as an output of stable-baselines3's logger.

    Times are left out: a resumed run's file equals the uninterrupted one's.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Append one row of all that is a number."""
        row = {
            name: value
            for name, value in sorted(_numbers(key_values).items())
            if "metrics" not in (key_excluded[name] or ()) and not name.startswith("time/")
        }
        self.run.log_metrics(step, row)

    def close(self) -> None:
        """Nothing is held open."""


class _TensorBoard(TensorBoardOutputFormat):
    """stable-baselines3's TensorBoard output; a resumed run hides what it writes again."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=first_step)
        self._is_closed = False
