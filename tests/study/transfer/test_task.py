from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from relagent.envs import PAIRS
from relagent.study.task import TaskConflictError, TaskError
from relagent.study.transfer.protocol import load_protocol
from relagent.study.transfer.task import TransferTask, in_order, pair_named

from ..conftest import MakeTask


def test_the_order_of_the_whole_study() -> None:
    protocols = [load_protocol(name) for name in ("paper", "ours")]
    tasks = in_order(
        TransferTask(protocol, pair, memory, seed)
        for seed in range(5)
        for memory in ("none", "lstm", "mem", "rel")
        for pair in reversed(PAIRS)
        for protocol in protocols
    )
    assert len({task.name for task in tasks}) == 240
    stages: list[list[str]] = []
    for size in (18, 36, 12, 36, 18):
        part, tasks = tasks[:size], tasks[size:]
        stages.append(sorted({f"{t.protocol.name} {t.memory} {t.seed}" for t in part}))
        assert {t.pair.name for t in part} == {pair.name for pair in PAIRS}
    assert stages == [
        ["ours rel 0", "ours rel 1", "ours rel 2"],
        [f"ours {memory} {seed}" for memory in ("lstm", "mem") for seed in range(3)],
        ["ours rel 3", "ours rel 4"],
        [f"paper {memory} {seed}" for memory in ("mem", "rel") for seed in range(3)],
        ["ours none 0", "ours none 1", "ours none 2"],
    ]


def test_all_pairs_get_a_first_seed_before_any_gets_a_second() -> None:
    ours = load_protocol("ours")
    tasks = in_order(TransferTask(ours, pair, "rel", seed) for pair in PAIRS for seed in range(3))
    assert [task.seed for task in tasks] == [0] * 6 + [1] * 6 + [2] * 6


def test_a_task_travels_as_json(make_task: MakeTask) -> None:
    task = make_task(steps=64, precision="float32")
    assert TransferTask.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_the_same_task_has_the_same_folder(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    assert task.run == tmp_path / "runs" / "tiny" / "gotoobject-rel-s0"
    assert task.result == tmp_path / "results" / "runs" / "tiny-gotoobject-rel-s0.json"
    assert task.policy == tmp_path / "results" / "policies" / "tiny-gotoobject-rel-s0"
    assert replace(task, seed=1).policy is None
    assert replace(task, memory="mem").policy is None


def test_what_was_made_otherwise_is_not_taken(done: TransferTask) -> None:
    assert done.finished()
    assert replace(done, device="cuda").finished()
    for change, message in (
        ({"steps": 1024}, r"made with steps 512, now it is 1024: ask for the same"),
        ({"episodes": 4}, r"made with episodes 3, now it is 4"),
    ):
        with pytest.raises(TaskConflictError, match=message):
            replace(done, **change).finished()  # type: ignore[arg-type]  # any field
    with pytest.raises(TaskConflictError, match="made with steps"):
        replace(done, steps=1024, results=Path("nowhere")).check_run()


def test_pairs_by_name() -> None:
    assert pair_named("DoorKey").train_id == "MiniGrid-DoorKey-5x5-v0"
    with pytest.raises(TaskError, match="no pair 'lava': choose among redbluedoors, "):
        pair_named("lava")


def test_what_was_made_before_a_setting_existed_is_not_taken(
    done: TransferTask, tmp_path: Path
) -> None:
    older = replace(done, results=tmp_path)
    data = json.loads(done.result.read_bytes())
    del data["config"]["short_sight"]
    older.result.parent.mkdir(parents=True)
    older.result.write_text(json.dumps(data))
    with pytest.raises(TaskConflictError, match="made with no setting short_sight, now it is"):
        older.finished()
