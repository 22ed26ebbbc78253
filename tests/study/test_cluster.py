"""Two nodes of Ray on this machine, and a worker that is killed in the middle of a run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from relagent.study.board import Board
from relagent.study.cluster import ClusterError, _collect, run_on_ray
from relagent.study.transfer.results import read_result

from .conftest import MakeTask


def test_without_ray_one_line_says_what_to_install(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="pip install ray"):
        run_on_ray([], Board([make_task()]), lambda: False, "auto")


@pytest.fixture
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def test_a_killed_worker_is_replaced_and_the_run_goes_on(cluster: Any, make_task: MakeTask) -> None:
    task, other = make_task(steps=1024), make_task("none", steps=1024)
    killed: list[int] = []

    def kill_in_the_middle() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            if len(list(task.run.glob("checkpoints/checkpoint-*"))) == 2:
                killed.append(int((task.run / "lock").read_text()))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    threading.Thread(target=kill_in_the_middle, daemon=True).start()
    board = Board([task, other], Console(quiet=True))
    run_on_ray([task, other], board, lambda: False, cluster.address)
    assert killed
    assert [line.state for line in board] == ["finished", "finished"]
    # The second try went on from a checkpoint: it did not start over.
    assert read_result(task.result).provenance["sessions"] == 2
    assert read_result(task.result).steps == 1024
    assert task.policy is not None
    assert (task.policy / "config.json").is_file()
    assert other.result.is_file()


def test_a_run_begun_earlier_is_waiting_until_it_goes_on(make_task: MakeTask) -> None:
    """Ray does not say which tasks have a core; that the folder is there says nothing."""
    task = make_task(steps=1024)
    metrics = task.run / "metrics.jsonl"
    task.run.mkdir(parents=True)
    metrics.write_text('{"step": 128}\n')
    board = Board([task], Console(quiet=True))
    seen: list[str] = []

    class Ray:
        """One future, which is ready on the third look; before, its run goes on."""

        def wait(self, futures: list[str], timeout: float) -> tuple[list[str], list[str]]:
            seen.append(board[task].state)
            if len(seen) == 2:
                metrics.write_text('{"step": 128}\n{"step": 256}\n')
                os.utime(metrics, (1, 1))
            return (futures, []) if len(seen) == 3 else ([], futures)

        def get(self, future: str) -> None:
            """It was stopped."""

    _collect(Ray(), {"a future": task}, board, bool)
    assert seen == ["waiting", "waiting", "training"]
    assert board[task].state == "stopped"
