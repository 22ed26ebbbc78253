"""What a supervised run is made of, and how it is read back."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from relagent.memories import make_memory
from relagent.runs.config import ConfigError
from relagent.runs.device import computing_device
from relagent.runs.directory import RunDamagedError, RunDirectory, RunError
from relagent.runs.files import read_or_empty
from relagent.runs.machine import peak_resident
from relagent.runs.resuming import read_checkpoint
from relagent.tasks.base import Task
from relagent.tasks.config import DatasetConfig, TaskConfig
from relagent.tasks.data import DataError
from relagent.tasks.defaults import TASKS
from relagent.tasks.model import SequenceModel


class OtherDataError(DataError):
    """A run whose data are not there, but others in their place."""


def make_model(config: TaskConfig, task: Task) -> SequenceModel:
    """Return a new model, with weights drawn from torch's global stream.

    Raises:
        MemoryOptionError: the memory cannot be made.
    """
    size = getattr(config, "embedding_size", task.input_size)
    memory = make_memory(config.memory, size, config.hidden_size, **config.memory_options)
    return SequenceModel(memory, task.n_classes, task.input_size if task.embedded else None)


def read_task_config(run: RunDirectory) -> TaskConfig:
    """Return a run's settings.

    Raises:
        RunError: it is an agent's run.
        RunDamagedError: they cannot be read, or are not those of a task.
    """
    settings = run.read_settings()
    if "env" in settings and "task" not in settings:
        raise RunError(
            f"{run.path} is a run of an agent, not of a task: python train_rl.py --resume "
            f"{shlex.quote(str(run.path))} goes on with it"
        )
    name = str(settings.get("task"))
    if name not in TASKS:
        known = ", ".join(TASKS)
        raise RunDamagedError(run.path / "config.json", f"it is of no supervised task ({known})")
    return run.read_config(TASKS[name])


def read_outcome(path: Path) -> dict[str, Any]:
    """Return what training wrote into a run directory when it ended; empty before that."""
    return read_or_empty(path / "result.json")


def check_data(task: Task, state: dict[str, Any]) -> None:
    """Check that a checkpoint's data are those that are found now; old ones do not say.

    Raises:
        OtherDataError: they are not.
    """
    if "data" in state and state["data"] != task.fingerprint:
        raise OtherDataError(
            "the data found now are not those that this run was trained on: name their folder with "
            "--data or RELAGENT_DATA"
        )


@dataclass(frozen=True)
class LoadedModel:
    """A model out of a run directory."""

    model: SequenceModel
    config: TaskConfig
    task: Task
    updates: int
    """Updates it was trained for."""


def load_model(path: Path | str, device: str = "cpu", data: str | None = None) -> LoadedModel:
    """Load a run's newest usable model.

    Args:
        path: the run directory.
        device: where to compute.
        data: folder of its data, should they not be where they were.

    Raises:
        ConfigError: the run is of a task that needs no data.
        RelagentError: no run there, its settings are not those of its newest checkpoint, or none of
            its checkpoints can be used; one line says which.
    """
    run = RunDirectory.open(path)
    config = read_task_config(run)
    if data is not None:
        if not isinstance(config, DatasetConfig):
            raise ConfigError("data", data, f"{config.task} needs none: leave it out")
        config = replace(config, data=data)
    task = config.make_task()
    state, checkpoint = read_checkpoint(run, config)
    check_data(task, state)
    model = make_model(config, task)
    model.load_state_dict(state["model"])
    return LoadedModel(model.to(computing_device(device)).eval(), config, task, checkpoint.step)


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Return the most memory that was in use so far.

    On CUDA that of torch's tensors; otherwise that of the whole process (Python, libraries and
    data included).
    """
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "CUDA tensors"}
    return {"bytes": peak_resident(), "of": "process"}
