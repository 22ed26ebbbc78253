"""Tiny runs to look into, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relagent.memories import kernels
from relagent.rl.train import TrainConfig
from relagent.rl.train import train as train_agent
from relagent.tasks.defaults import default_config
from relagent.tasks.train import train as train_task

WORLD = "MiniGrid-Empty-5x5-v0"


@pytest.fixture(scope="session")
def task_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the run of a memory on copy, trained for two updates."""
    folder = tmp_path_factory.mktemp("tasks")

    def make(memory: str) -> Path:
        path = folder / memory
        if not path.exists():
            config = default_config(
                "copy", memory, T=6, hidden_size=8, updates=2, evaluation_batches=1, batch_size=2
            )
            with kernels.disable():
                train_task(config, path)
        return path

    return make


@pytest.fixture(scope="session")
def agent_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the run of an agent with a memory, trained for one update."""
    folder = tmp_path_factory.mktemp("agents")

    def make(memory: str) -> Path:
        path = folder / memory
        if not path.exists():
            config = TrainConfig(
                env=WORLD, memory=memory, steps=16, n_envs=2, n_steps=8, batch_size=16, n_epochs=1,
                hidden_size=8, backend="minigrid", device="cpu", threads=1,
            )  # fmt: skip
            with kernels.disable():
                train_agent(config, path)
        return path

    return make
