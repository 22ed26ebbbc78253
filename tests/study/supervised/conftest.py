"""Tiny tasks of the supervised study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relagent.study.supervised import run, task
from relagent.study.supervised.task import SupervisedTask
from relagent.tasks.defaults import default_config

MakeTask = Callable[..., SupervisedTask]

T, DELAYS = 6, (9, 14)


@pytest.fixture
def short_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs at T = 6 are also scored at T = 9 and 14, on two sequences."""
    monkeypatch.setattr(task, "TRANSFER_T", T)
    monkeypatch.setattr(task, "TRANSFER_DELAYS", DELAYS)
    monkeypatch.setattr(run, "sequences", lambda memory, T: (1, 2))


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Of copy: 12 updates or a bit more, with an evaluation every 5."""

    def make(memory: str = "lstm", folder: str = "", **settings: Any) -> SupervisedTask:
        small: dict[str, Any] = {
            "hidden_size": 8,
            "T": T,
            "updates": 12,
            "log_every": 4,
            "evaluate_every": 5,
        }
        small |= {"evaluation_batches": 2, "device": "cpu"}
        config = default_config("copy", memory, **{**small, **settings})
        where = tmp_path / folder
        return SupervisedTask(config, root=where / "runs", results=where / "results")

    return make


@pytest.fixture
def make_ptb(tmp_path: Path) -> MakeTask:
    """Of ptb: 5 updates an epoch."""
    data = tmp_path / "data" / "ptb"
    data.mkdir(parents=True)
    for name, times in (("train", 20), ("valid", 6), ("test", 4)):
        (data / f"ptb.{name}.txt").write_text(" the cat sat \n" * times)

    def make(folder: str = "", **settings: Any) -> SupervisedTask:
        small: dict[str, Any] = {
            "hidden_size": 8,
            "embedding_size": 5,
            "batch_size": 5,
            "window": 10,
        }
        small |= {"epochs": 2, "log_every": 2, "data": str(data), "device": "cpu"}
        config = default_config("ptb", "lstm", **{**small, **settings})
        where = tmp_path / folder
        return SupervisedTask(config, root=where / "runs", results=where / "results")

    return make
