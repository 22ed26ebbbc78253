"""The grid on this machine: one process a task, one thread each, as many as there are cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import SIGTERM, Signals

from relagent.study.board import Board
from relagent.study.task import Task, task_to_json

POLL = 0.2
PATIENCE = 5.0


class Child:
    """A process that does one task; its words go to a log file beside the run directory.

    It is told its task on its standard input, which stays open: should this process die, however
    it dies, the child notices, saves and ends too.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.log = task.run.with_name(f"{task.run.name}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._start = log.tell()
            # A session of its own: Ctrl-C reaches this process alone, which then tells the others.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relagent.study.child"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **threads},
                start_new_session=True,
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it failed at once: its exit code will say so
            self.process.stdin.write(json.dumps(task_to_json(task)).encode() + b"\n")
            self.process.stdin.flush()
        self.told: float | None = None

    def stop(self, saved: bool) -> None:
        """Ask it to save and end, again and again; ``saved``: it has nothing left to save."""
        now = time.monotonic()
        # A second signal ends it at once.
        if self.told is None or (saved and now - self.told > PATIENCE):
            self.told = now
            with suppress(ProcessLookupError):
                self.process.send_signal(SIGTERM)

    def last_line(self) -> str:
        """The last error that it told, or else the last thing that it said.

        What stands behind an error may be of another study's child, which works on this run.
        """
        with self.log.open("rb") as log:
            log.seek(self._start)
            lines = [line.strip() for line in log.read().decode(errors="replace").split("\n")]
        said = [line for line in lines if line]
        errors = [line for line in said if line.startswith("error: ")]
        return (errors or said or ["it said nothing"])[-1]


def run_here(tasks: Sequence[Task], board: Board, stop: Callable[[], bool], jobs: int) -> None:
    """Do tasks, ``jobs`` at a time; the board is told what becomes of each.

    A task that fails is left where it is, and the others go on. When asked to stop, the tasks at
    work are saved where they are.
    """
    waiting = deque(tasks)
    running: list[Child] = []
    try:
        while waiting or running:
            if stop():
                waiting.clear()
                for child in running:
                    child.stop(saved=board[child.task].state == "scoring")
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                running.append(Child(task))
                board.set(task, "training")
            for child in list(running):
                if (code := child.process.poll()) is not None:
                    running.remove(child)
                    _report(child, code, board)
            board.refresh()
            time.sleep(POLL)
    finally:  # asked to stop at once, or something went wrong here
        for child in running:
            child.process.terminate()
        for child in running:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(2 * PATIENCE)
            child.process.kill()


def _report(child: Child, code: int, board: Board) -> None:
    if child.process.stdin is not None:
        with suppress(BrokenPipeError):
            child.process.stdin.close()
    if code == 0:
        board.set(child.task, "finished")
    elif child.told is not None and code in (128 + SIGTERM, -SIGTERM):
        board.set(child.task, "stopped")
    else:
        line = child.last_line() if code > 0 else f"ended by {Signals(-code).name}"
        board.set(child.task, "failed", line.removeprefix("error: "))
