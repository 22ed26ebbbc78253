"""A protocol that takes a second, and one task of it, done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from relagent.memories import kernels
from relagent.study.transfer.protocol import Protocol, load_protocol
from relagent.study.transfer.run import run_task
from relagent.study.transfer.task import TransferTask, pair_named

TINY = {
    "description": "Tiny.",
    "memories": ["rel", "none"],
    "seeds": 1,
    "settings": {
        "steps": 512,
        "n_envs": 4,
        "n_steps": 16,
        "batch_size": 32,
        "n_epochs": 1,
        "hidden_size": 8,
        "checkpoint_every": 128,
    },
    "pairs": {},
}

MakeTask = Callable[..., TransferTask]


@pytest.fixture(scope="package", autouse=True)
def no_kernels() -> Iterator[None]:
    """Here and in all processes started from here: runs this short do not repay compiling."""
    with pytest.MonkeyPatch.context() as patch, kernels.disable():
        patch.setenv("RELAGENT_KERNELS", "0")
        yield


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files: drawing them takes most of a report's time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


@pytest.fixture(scope="package")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("protocol") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="package")
def tiny(tiny_file: Path) -> Protocol:
    return load_protocol(str(tiny_file))


@pytest.fixture
def make_task(tiny: Protocol, tmp_path: Path) -> MakeTask:
    def make(memory: str = "rel", **changes: object) -> TransferTask:
        where = {"root": tmp_path / "runs", "results": tmp_path / "results", "episodes": 3}
        return TransferTask(tiny, pair_named("gotoobject"), memory, 0, **{**where, **changes})  # type: ignore[arg-type]  # any field

    return make


@pytest.fixture(scope="package")
def done(tiny: Protocol, tmp_path_factory: pytest.TempPathFactory) -> TransferTask:
    """A task that ran without any interruption."""
    folder = tmp_path_factory.mktemp("done")
    task = TransferTask(
        tiny,
        pair_named("gotoobject"),
        "rel",
        0,
        root=folder / "runs",
        results=folder / "results",
        episodes=3,
    )
    assert run_task(task, lambda: False)
    return task
