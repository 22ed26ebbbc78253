"""Models for the figures: trained where they are not there yet, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relagent.analysis.findings import profile_of
from relagent.analysis.gradients import gradient_norms
from relagent.analysis.sequences import take_sequences
from relagent.errors import RelagentError
from relagent.runs.config import Config, ConfigError, names_of, option, to_json
from relagent.runs.directory import RunDirectory
from relagent.tasks.config import GeneratedConfig, Optimizer, TaskConfig
from relagent.tasks.defaults import TASKS, default_config
from relagent.tasks.run import (
    LoadedModel,
    load_model,
    make_model,
    read_outcome,
    read_task_config,
)
from relagent.tasks.train import resume, train

Stop = Callable[[], bool]


class FigureRunError(RelagentError):
    """A run of a figure that cannot be used as asked."""


class StoppedError(RelagentError):
    """The user stopped a figure's trainings; what was done is saved."""


@dataclass(frozen=True, kw_only=True)
class TrainedConfig(Config):
    """How the models of a figure are trained; the same for all of them."""

    T: int = option(100, "The delay of the sequences, which have T + 20 steps.")
    updates: int = option(8000, "Updates at most; training ends before if the task is solved.")
    seeds: int = option(1, "Models of each setting, with the seeds from 0.")
    hidden_size: int = option(64, "Size of the hidden state.")
    optimizer: Optimizer = option("adam", "Optimiser on copy and denoise.")
    learning_rate: float = option(1e-3, "Step size on copy and denoise.")
    sequences: int = option(32, "Sequences that a trained model is looked at with.")
    runs: str = option("runs/figures", "Folder of the runs; those already there are not repeated.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("T", "updates", "seeds", "hidden_size", "sequences"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "it must be at least 1")

    def settings(self, task: str, memory: str, seed: int, **options: Any) -> TaskConfig:
        """Return the settings of one model; ``options`` are those of its memory or its task.

        On data sets, training keeps the step size of :mod:`relagent.tasks.defaults`.
        """
        values: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "seed": seed,
            "device": "cpu",
            "threads": 1,
        }
        if issubclass(TASKS[task], GeneratedConfig):
            values |= {
                "T": self.T,
                "updates": self.updates,
                "optimizer": self.optimizer,
                "learning_rate": self.learning_rate,
            }
        return default_config(task, memory, **{**values, **options})


def trained(config: TaskConfig, root: Path, stop: Stop) -> LoadedModel:
    """Return a trained model, from its run under ``root``; a run that is missing is made.

    Args:
        config: its settings.
        root: folder of the runs.
        stop: polled between updates; true saves and ends.

    Raises:
        FigureRunError: a run of that name was made with other settings.
        StoppedError: asked to stop.
        RelagentError: it cannot be trained; one line says why.
    """
    path = run_of(config, root)
    if not (path / "config.json").exists():
        done = train(config, path, stop)
    else:
        known, wanted = to_json(read_task_config(RunDirectory.open(path))), to_json(config)
        for name in names_of(type(config), "result", "budget"):
            if (value := known[name]) != wanted[name]:
                raise FigureRunError(
                    f"{path} was made with {name} {value!r}, now it is {wanted[name]!r}: ask for "
                    "the same, or choose another --runs"
                )
        outcome = read_outcome(path)
        # What diverged is gone on with, from just before that, and says once more that it did.
        ended = bool(outcome) and outcome.get("diverged") is None
        done = ended or resume(path, stop=stop)
    if not done:
        raise StoppedError(f"stopped: the same command goes on, with the runs in {root}")
    return load_model(path)


def run_of(config: TaskConfig, root: Path) -> Path:
    """Return the folder of a run under ``root``: ``denoise-rel-T100-n64-nu15-rho3-s0``."""
    parts = [config.task, config.memory]
    if isinstance(config, GeneratedConfig):
        parts.append(f"T{config.T}")
    parts.append(f"n{config.hidden_size}")
    parts += [f"{name}{v}" for name in ("nu", "rho") if (v := getattr(config, name)) is not None]
    return root / "-".join([*parts, f"s{config.seed}"])


def final_accuracy(run: Path) -> float:
    """Return the accuracy that a finished run's last evaluation found."""
    return float(read_outcome(run)["validation"]["validation/accuracy"])


def gradients_of(loaded: LoadedModel, sequences: int) -> Tensor:
    """Return ‖∇_{h_t} L‖ [T, B] along B sequences that the model was not trained on."""
    taken = take_sequences(loaded, sequences)
    return gradient_norms(taken.memory, taken.x, taken.loss)


def untrained(config: TaskConfig) -> LoadedModel:
    """Return the model that a run starts from."""
    task = config.make_task()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LoadedModel(make_model(config, task).eval(), config, task, 0)


class Norms(NamedTuple):
    """What is told of the gradient norms along sequences."""

    level: float
    """Of all sequences together (a single one's may all but vanish where no state was remembered):
    the median over the steps."""
    span: float
    """Of all sequences together: how many powers of ten 90% of the steps span, log10 of the 95%
    quantile over the 5% quantile."""
    first: float
    """Of single sequences: the median over the first tenth of their steps."""
    last: float
    """Of single sequences: the median over the last tenth of their steps."""

    def plain(self) -> dict[str, float | None]:
        """Return them as JSON takes them: what is no finite number is null."""
        return {name: v if np.isfinite(v) else None for name, v in self._asdict().items()}


def norms_of(norms: Tensor) -> Norms:
    """Summarise ‖∇_{h_t} L‖ [T, B] of equally long sequences."""
    table = norms.double().cpu().numpy()
    tenth = max(1, len(table) // 10)
    low, level, high = np.quantile(profile_of([norms]).together, [0.05, 0.5, 0.95])
    span = float(np.log10(high / low)) if low > 0 else float("inf")
    first, last = float(np.median(table[:tenth])), float(np.median(table[-tenth:]))
    return Norms(float(level), span, first, last)
