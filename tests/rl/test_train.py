"""Training into a run directory: what is refused before there is one, how it ends on an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from relagent.rl.ppo import MemoryPPO, TrainingDivergedError
from relagent.rl.train import TrainConfig, train

SMALL: dict[str, Any] = {
    "memory": "none",
    "steps": 16,
    "n_envs": 2,
    "n_steps": 4,
    "batch_size": 8,
    "n_epochs": 1,
    "hidden_size": 8,
    "device": "cpu",
}


def test_an_error_leaves_the_terminal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(Progress, "start", lambda _: shown.append(True))
    monkeypatch.setattr(Progress, "stop", lambda _: shown.append(False))

    def diverge(model: MemoryPPO) -> None:
        raise TrainingDivergedError(model.num_timesteps)

    monkeypatch.setattr(MemoryPPO, "train", diverge)
    with pytest.raises(TrainingDivergedError):
        train(TrainConfig(env="CartPole-v1", **SMALL), tmp_path / "run")
    assert shown == [True, False]
