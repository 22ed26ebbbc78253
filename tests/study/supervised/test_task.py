from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relagent.runs.config import add_arguments
from relagent.study.result_file import ResultError
from relagent.study.supervised.result import read_result
from relagent.study.supervised.task import SupervisedTask, task_words
from relagent.study.task import TaskConflictError, task_from_json, task_to_json
from relagent.tasks.config import TaskConfig
from relagent.tasks.data import DataNotFoundError
from relagent.tasks.defaults import TASKS, default_config

from .conftest import MakeTask
from .synthetic import synthetic


def copy(folder: Path, memory: str = "lstm", **settings: Any) -> SupervisedTask:
    config = default_config("copy", memory, device="cpu", **settings)
    return SupervisedTask(config, root=folder / "runs", results=folder / "results")


def test_names_and_folders(tmp_path: Path) -> None:
    task = copy(tmp_path, "rel-rnn", T=100)
    assert task.name == "T100-rel-rnn-s0"
    assert task.run == tmp_path / "runs" / "copy" / "T100-rel-rnn-s0"
    assert task.result == tmp_path / "results" / "runs" / "T100-rel-rnn-s0.json"
    names = [
        SupervisedTask(default_config(study, "lstm", seed=2, **settings)).name
        for study, settings in (
            ("mnist", {"group": 7}),
            ("mnist", {"permuted": True}),
            ("ptb", {}),
        )
    ]
    assert names == ["group7-lstm-s2", "permuted-group1-lstm-s2", "lstm-s2"]


def test_a_task_travels_as_json(make_task: MakeTask) -> None:
    task = make_task("rel-rnn", nu=3)
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_who_is_scored_at_other_delays(tmp_path: Path) -> None:
    assert copy(tmp_path, "rel", T=100).transfer_delays == (200, 400, 1000, 2000, 5000)
    assert copy(tmp_path, "rel", T=200).transfer_delays == ()
    assert copy(tmp_path, "sab", T=100).transfer_delays == ()
    denoise = SupervisedTask(default_config("denoise", "rel", T=100))
    assert denoise.transfer_delays == ()


@pytest.mark.parametrize(
    ("made", "asked", "finished"),
    [
        # Solved, with any budget.
        ({"updates": 900, "accuracy": 1.0}, 30_000, True),
        ({"updates": 900, "accuracy": 1.0}, 10, True),
        # Not solved: with as much budget as is asked for, or more.
        ({"updates": 1000, "accuracy": 0.9}, 1000, True),
        ({"updates": 1000, "accuracy": 0.9}, 500, True),
        ({"updates": 1000, "accuracy": 0.9}, 1001, False),
    ],
)
def test_the_budget_may_differ(
    tmp_path: Path, made: Mapping[str, Any], asked: int, finished: bool
) -> None:
    result = synthetic("copy", "lstm", T=100, **made)
    budget = 30_000 if result.solved else 1000
    task = copy(tmp_path, T=100, updates=asked)
    assert not task.finished()
    replace(result, config={**result.config, "updates": budget}).write(task.result)
    assert task.finished() is finished


def test_epochs_are_a_budget_too(make_ptb: MakeTask) -> None:
    task = make_ptb(epochs=3)
    result = synthetic("ptb", "lstm")
    config = {name: getattr(task.config, name) for name in result.config}
    for epochs, finished in ((2, False), (3, True), (4, True)):
        replace(result, config={**config, "epochs": epochs}).write(task.result)
        assert task.finished() is finished


def test_what_was_made_otherwise_is_not_taken(tmp_path: Path) -> None:
    task = copy(tmp_path, T=100)
    synthetic("copy", "lstm", T=100).write(task.result)
    assert copy(tmp_path, T=100, threads=2, checkpoint_minutes=9.0).finished()
    for change, message in (
        ({"hidden_size": 64}, "made with hidden_size 128, now it is 64: ask for the same, or"),
        ({"learning_rate": 0.1}, r"made with learning_rate 0\.0002, now it is 0\.1"),
        ({"log_every": 7}, "made with log_every 100, now it is 7"),
    ):
        with pytest.raises(TaskConflictError, match=message):
            copy(tmp_path, T=100, **change).finished()


def test_data_that_are_not_there_are_missed_before_anything_starts(tmp_path: Path) -> None:
    config = default_config("ptb", "lstm", data=str(tmp_path))
    with pytest.raises(DataNotFoundError, match="ptb not found"):
        SupervisedTask(config, root=tmp_path / "runs").check_run()


@pytest.mark.parametrize(
    ("study", "memory", "settings"),
    [
        ("copy", "rel-rnn", {"T": 100, "updates": 30_000, "nu": 4}),
        ("denoise", "exp-rnn", {"seed": 3, "orthogonal_learning_rate": 0.125}),
        ("mnist", "lstm", {"permuted": True, "group": 7, "epochs": 5}),
        ("ptb", "rel", {"halve_on_stall": False}),
        # What combine is by default depends on the nonlinearity.
        ("denoise", "rel-rnn", {"nonlinearity": "tanh", "combine": "mean"}),
        ("copy", "rel-rnn", {"nonlinearity": "modrelu", "combine": "sum"}),
    ],
)
def test_the_command_makes_the_same_settings(
    study: str, memory: str, settings: Mapping[str, Any]
) -> None:
    config = default_config(study, memory, **settings)
    words = task_words(config)
    assert words[:6] == ["python", "-m", "relagent.tasks", study, "--memory", memory]
    parser = argparse.ArgumentParser()
    kind: type[TaskConfig] = TASKS[study]
    add_arguments(parser, kind)
    assert default_config(study, **vars(parser.parse_args(words[4:]))) == config


@pytest.mark.parametrize(
    ("study", "memory"),
    [("copy", "rel"), ("denoise", "exp-rnn"), ("mnist", "lstm"), ("ptb", "rel")],
)
def test_the_command_repeats_the_run_after_the_defaults_have_changed(
    study: str, memory: str
) -> None:
    config = default_config(study, memory)
    words = task_words(config)
    for setting in ("seed", "optimizer", "learning_rate"):
        assert words[words.index("--" + setting.replace("_", "-")) + 1] == str(
            getattr(config, setting)
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 2', '"format": 3'),
        ('"total"', '"whole"'),
        ('"seed": 0,\n', '"seed": "zero",\n'),
        ("{", ""),
        ('"training"', '"straining"'),
        ('"study": "copy"', '"study": "kopie"'),
        ('"memory": "lstm",', '"memory": "lstn",'),
        ('"loss": 0.1, "accuracy": 1.0', '"accuracy": 1.0'),
        ('"steps": [100, ', '"steps": ['),
        ('"bytes"', '"bites"'),
        ('"T": 100, ', ""),
        ('"nu": null', '"nu": 3'),
        ('"sequences"', '"sentences"'),
    ],
)
def test_damaged_results_are_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "runs" / "x.json"
    result = synthetic("copy", "lstm", T=100, transfer={200: 0.5})
    result.write(path)
    assert read_result(path) == result
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ResultError, match=str(path)):
        read_result(path)
