"""The command, as a user gives it: processes, signals, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from relagent.study.__main__ import main
from relagent.study.board import Board
from relagent.study.local import Child, run_here
from relagent.study.transfer.task import TransferTask
from tests.in_process import run_command

from .conftest import MakeTask
from .transfer.test_run import outcome


class Study:
    """``table4`` on a tiny run in a folder."""

    def __init__(self, folder: Path, protocol: Path) -> None:
        self.words = [sys.executable, "-m", "relagent.study", "table4", "--jobs", "2"]
        self.words += ["--protocol", str(protocol), "--only", "GoToObject", "--episodes", "3"]
        self.words += ["--memories", "rel"]
        self.words += ["--root", str(folder / "runs"), "--results", str(folder / "results")]

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*self.words, *words], stderr=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
    ) -> tuple[int, str]:
        """Run the command in this process; its children are real. Gives exit code and messages."""
        capfd.readouterr()
        code = run_command(monkeypatch, main, *self.words[2:], *words)
        return code, capfd.readouterr().err


def wait_for(condition: Callable[[], Any], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_interrupted_killed_and_continued_it_ends_the_same(
    done: TransferTask,
    make_task: MakeTask,
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    task = make_task()
    study = Study(tmp_path, tiny_file)

    # Interrupted: the run is saved where it is.
    first = study.start()
    wait_for(lambda: list(task.run.glob("checkpoints/checkpoint-*")))
    first.send_signal(signal.SIGTERM)
    assert first.stderr is not None
    said = first.stderr.read()
    assert first.wait(timeout=240) == 128 + signal.SIGTERM
    assert "stopped; the same command goes on where it was" in said
    assert not task.result.exists()

    # Killed, without a word: the child notices, and leaves the run to others.
    second = study.start()
    lock = task.run / "lock"
    before = lock.read_text()
    wait_for(lambda: lock.read_text() not in ("", before) or task.result.exists())
    pid = int(lock.read_text())
    second.kill()
    second.communicate(timeout=240)
    wait_for(lambda: not alive(pid))

    code, said = study.run(monkeypatch, capfd)
    assert code == 0, said
    assert outcome(task) == outcome(done)

    # Nothing finished is done again.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, said = study.run(monkeypatch, capfd)
    assert code == 0
    assert "runs: 1, finished: 1" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    # And nothing is mixed with what was made otherwise: that is said before anything starts.
    code, said = study.run(monkeypatch, capfd, "--steps", "1024")
    assert code == 2
    assert said.startswith("error: ")
    assert "made with steps 512, now it is 1024" in said


def test_a_task_that_fails_does_not_stop_the_others(make_task: MakeTask) -> None:
    broken, sound = make_task(), make_task("none", steps=64, episodes=1)
    broken.run.parent.mkdir(parents=True)
    broken.run.write_text("a file where the run's folder should be")
    board = Board([broken, sound], Console(file=None, quiet=True))
    run_here([broken, sound], board, lambda: False, jobs=2)
    assert board[broken].state == "failed"
    assert board[broken].note.startswith(f"{broken.run} cannot be a folder, a file stands there")
    assert board[sound].state == "finished"
    assert board[sound].done == 64


def test_a_failure_is_told_in_its_own_words(make_task: MakeTask) -> None:
    task = make_task()
    task.run.parent.mkdir(parents=True)
    task.run.write_text("a file where the run's folder should be")
    child = Child(task)
    with child.log.open("ab") as log:  # another study's child may write there too
        child.process.wait()
        log.write(b"next: of another\n")
    assert child.last_line().startswith(f"error: {task.run} cannot be a folder")


def test_bad_requests_are_one_line(
    tmp_path: Path,
    tiny_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for words, part in (
        (["--only", "lava"], "no pair 'lava'"),
        (["--protocol", "theirs"], "no protocol 'theirs'"),
    ):
        code, said = Study(tmp_path, tiny_file).run(monkeypatch, capfd, *words)
        assert code == 2
        assert said.startswith("error: ")
        assert part in said
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
