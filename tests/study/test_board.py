from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from relagent.study.board import Board, Line, duration, last_row
from relagent.study.transfer.task import TransferTask

from .conftest import MakeTask


def board_of(
    tasks: list[TransferTask], height: int = 40, terminal: bool = True
) -> tuple[Board, StringIO]:
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, height=height)
    return Board(tasks, console, lines_every=0.0), text


def metrics(task: TransferTask, *steps: int) -> None:
    task.run.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": step, "rollout/ep_rew_mean": step / 1000}) for step in steps]
    (task.run / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 999')


def test_the_last_whole_row(make_task: MakeTask, tmp_path: Path) -> None:
    metrics(make_task(), 64, 128)
    assert last_row(make_task().run / "metrics.jsonl") == {
        "step": 128,
        "rollout/ep_rew_mean": 0.128,
    }
    assert last_row(tmp_path / "absent") is None
    (tmp_path / "cut").write_text('{"step": 1')
    assert last_row(tmp_path / "cut") is None


def test_speed_and_time_left(make_task: MakeTask) -> None:
    task = make_task()
    line = Line(task, "training")
    metrics(task, 64)
    line.look(now=100.0)
    assert (line.done, line.rate, line.eta) == (64, None, None)
    metrics(task, 64, 192)
    line.look(now=104.0)
    assert (line.rate, line.figure) == (32.0, 0.192)
    assert line.cells()[3] == "32.0"
    assert line.eta == (512 - 192) / 32
    metrics(task, 512)
    line.look(now=105.0)
    assert line.state == "scoring"
    assert line.eta is None


def test_the_table_shows_every_run(done: TransferTask, make_task: MakeTask) -> None:
    going, waiting = make_task("none"), replace(make_task("none"), seed=1)
    metrics(going, 64)
    board, text = board_of([done, going, waiting])
    board.set(done, "finished")
    board.set(going, "training")
    board.refresh()
    board.console.print(board.table())
    shown = text.getvalue()
    for part in (done.name, going.name, waiting.name, "0.064", "512", "1 finished, 1 training, 1"):
        assert part in shown


def test_in_a_low_terminal_the_runs_at_work_are_shown(make_task: MakeTask) -> None:
    tasks = [replace(make_task("none"), seed=seed) for seed in range(50)]
    board, text = board_of(tasks, height=14)
    board.set(tasks[40], "training")
    board.set(tasks[45], "failed", "no space")
    board.console.print(board.table())
    shown = text.getvalue()
    assert tasks[40].name in shown
    assert "failed: no space" in shown
    assert set(re.findall(r"none-s(\d+)", shown)) == {"40", "45", *"012345"}
    assert "48 waiting" in shown


def test_a_log_file_gets_lines(make_task: MakeTask) -> None:
    task = make_task()
    board, text = board_of([task], terminal=False)
    with board.live():
        board.set(task, "training")
        metrics(task, 64)
        board.refresh()
        board.set(task, "failed", "no [space]")
        board.set(task, "training")  # it goes on from where it was
    assert text.getvalue().splitlines() == [
        f"{task.name}: training, 0 steps",
        f"{task.name}: training, 64 steps, reward 0.064",
        f"{task.name}: failed: no [space], 64 steps, reward 0.064",
        f"{task.name}: training, 64 steps, reward 0.064",
    ]


def test_a_live_table_ends_with_the_states(done: TransferTask, make_task: MakeTask) -> None:
    task = make_task()
    shutil.copytree(done.results, task.results)
    board, text = board_of([task])
    with board.live():
        board.set(task, "training")
        board.set(task, "finished")
    assert "1 finished" in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.4, "0 s"), (59.9, "60 s"), (60, "1 min"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
