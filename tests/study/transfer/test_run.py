from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relagent.rl.checkpoint import load_policy
from relagent.rl.play import play, play_all
from relagent.study.task import TaskConflictError, TaskError
from relagent.study.transfer import run as execute
from relagent.study.transfer.results import read_result
from relagent.study.transfer.run import run_task
from relagent.study.transfer.task import TransferTask, played_path

from ..conftest import MakeTask


def outcome(task: TransferTask) -> dict[str, Any]:
    """All of a result that does not speak of time and place."""
    data: dict[str, Any] = json.loads(task.result.read_text())
    for name in ("seconds", "steps_per_second", "provenance"):
        del data[name]
    return data


def after(polls: int) -> Callable[[], bool]:
    """Ask for a stop at the poll of that number, and from then on."""
    count = itertools.count()
    return lambda: next(count) >= polls


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }


def test_stopped_everywhere_it_ends_as_if_nothing_happened(
    done: TransferTask, make_task: MakeTask
) -> None:
    task = make_task()
    tries = 0
    while not run_task(task, after(5)):  # three rollouts, or a few episodes, at a time
        tries += 1
        assert tries < 20
        assert not task.result.exists()
    assert tries >= 3
    assert outcome(task) == outcome(done)
    for folder in ("checkpoints", "played"):
        assert files(task.run / folder) == files(done.run / folder)
    assert read_result(task.result).provenance["sessions"] > 1


def test_a_finished_task_is_not_touched(
    done: TransferTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(done.root) | files(done.results)
    for name in ("train", "resume", "play_all"):
        monkeypatch.setattr(execute, name, lambda *_: pytest.fail("it was run again"))
    assert run_task(done, lambda: True)
    assert files(done.root) | files(done.results) == before


def test_killed_before_the_first_checkpoint_it_starts_over(
    done: TransferTask, make_task: MakeTask
) -> None:
    task = make_task()
    shutil.copytree(done.run, task.run)
    shutil.rmtree(task.run / "checkpoints")  # what a run looks like before its first save
    (task.run / "checkpoints").mkdir()
    assert run_task(task, lambda: False)
    assert outcome(task) == outcome(done)


def test_played_worlds_are_not_played_again(
    done: TransferTask, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    shutil.copytree(done.run, task.run)
    missing = task.games[2]
    played_path(task, *missing).write_text("cut sho")
    jobs: list[tuple[str, str]] = []

    def spy(work: Any, **options: Any) -> Any:
        jobs.extend((job.env_id, "greedy" if job.deterministic else "sampled") for job in work)
        return play_all(work, **options)

    monkeypatch.setattr(execute, "play_all", spy)
    assert run_task(task, lambda: False)
    assert jobs == [missing]
    assert outcome(task) == outcome(done)


def test_a_run_of_other_settings_is_left_alone(done: TransferTask, make_task: MakeTask) -> None:
    task = make_task(steps=1024)
    shutil.copytree(done.run, task.run)
    before = files(task.run)
    with pytest.raises(TaskConflictError, match="made with steps 512, now it is 1024"):
        run_task(task, lambda: False)
    assert files(task.run) == before


def test_damaged_checkpoints_are_said_in_one_line(done: TransferTask, make_task: MakeTask) -> None:
    task = make_task()
    shutil.copytree(done.run, task.run)
    for path in (task.run / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(TaskError, match=r"remove .* and it is trained again"):
        run_task(task, lambda: False)


def test_the_score_is_that_of_the_final_policy(done: TransferTask) -> None:
    policy = load_policy(done.run).policy
    result = read_result(done.result)
    for world, actions in done.games:
        score = result.world(world, actions)
        episodes = play(policy, world, 3, actions == "greedy")
        assert score is not None
        assert score.reward == episodes.rewards.mean()
        assert score.length == episodes.lengths.mean()
        assert np.allclose(score.rewards, episodes.rewards, atol=1e-5)


def test_the_kept_policy_is_the_run_s_and_small(done: TransferTask) -> None:
    assert done.policy is not None
    kept, full = load_policy(done.policy), load_policy(done.run)
    assert kept.config == full.config
    assert (kept.steps, kept.backend) == (full.steps, full.backend)
    for (name, mine), (_, other) in zip(
        kept.policy.state_dict().items(), full.policy.state_dict().items(), strict=True
    ):
        assert np.array_equal(mine, other), name
    assert kept.checkpoint.stat().st_size < 0.6 * full.checkpoint.stat().st_size
    assert "command" not in json.loads((done.policy / "provenance.json").read_text())


def test_time_is_added_up_over_sessions(make_task: MakeTask) -> None:
    task = replace(make_task("none"), episodes=1)
    assert not run_task(task, after(2))
    first = json.loads((task.run / "seconds.json").read_text())
    assert first["training"] > 0
    assert first["playing"] == 0
    assert run_task(task, lambda: False)
    spent = json.loads((task.run / "seconds.json").read_text())
    assert spent["training"] > first["training"]
    assert spent["playing"] > 0
    rounded = {name: round(seconds, 1) for name, seconds in spent.items()}
    assert read_result(task.result).seconds == rounded
