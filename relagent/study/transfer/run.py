"""Do one cell of Table 4's grid: train, or go on where it was, then play and write one file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relagent.rl.checkpoint import LoadedPolicy, load_policy
from relagent.rl.episodes import Job, Result
from relagent.rl.play import play_all
from relagent.rl.report import Row
from relagent.rl.train import resume, train
from relagent.runs.config import to_json
from relagent.runs.directory import RunDirectory
from relagent.runs.files import read_or_empty, write_atomically
from relagent.runs.provenance import provenance
from relagent.study.transfer.keep import keep_policy
from relagent.study.transfer.results import RunResult, WorldResult, thin_curve
from relagent.study.transfer.task import TransferTask, played_path, task_words
from relagent.study.work import (
    KEPT,
    read_part,
    train_from_wherever,
    training_provenance,
    write_part,
)


def run_task(task: TransferTask, stop: Callable[[], bool]) -> bool:
    """Do a task, or what is left of it.

    Args:
        task: which.
        stop: polled; true saves and ends.

    Returns:
        Whether the result is there; it may have been asked to stop.

    Raises:
        TaskConflictError: its run or result was made with other settings.
        RelagentError: what training or playing raises.
    """
    if task.finished():
        return True
    task.check_run()
    clock = _Clock(task.run / "seconds.json")
    with clock.running("training") as tick:
        if not _train(task, lambda: tick() or stop()):
            return False
    loaded = load_policy(task.run)
    with clock.running("playing") as tick:
        if not _play(task, loaded, lambda: tick() or stop()):
            return False
    if task.policy is not None:
        keep_policy(task.run, task.policy)
    _result(task, loaded, clock.seconds).write(task.result)
    return True


def _train(task: TransferTask, stop: Callable[[], bool]) -> bool:
    """Train to the end, from wherever the run is."""

    def begin() -> bool:
        return train(task.config, task.run, stop)

    def go_on(steps: int) -> bool:
        if steps >= task.config.steps:
            return True
        return resume(task.run, {"device": task.device, "threads": 1}, stop)

    return train_from_wherever(task.run, begin, go_on)


class _Stopped(Exception):  # noqa: N818  # no error: playing was asked to stop
    """Playing was asked to stop."""


def _play(task: TransferTask, loaded: LoadedPolicy, stop: Callable[[], bool]) -> bool:
    """Play every world that was not played yet, and save what came of each."""

    def poll(_: Result) -> None:
        if stop():
            raise _Stopped

    for world, actions in task.games:
        path = played_path(task, world, actions)
        if read_part(path, _made_with(task, loaded)) is not None:
            continue
        job = Job(loaded.policy, world, task.episodes, deterministic=actions == "greedy")
        try:
            if stop():
                raise _Stopped
            (episodes,) = play_all(
                [job],
                precision=task.precision,
                on_result=poll,
            )
        except _Stopped:
            return False
        successes = episodes.successes
        assert successes is not None, "every world of the study tells of success"
        row = Row(
            train=task.pair.train_id,
            world=world,
            memory=task.memory,
            actions=actions,
            paper=None,
            seeds=(task.seed,),
            steps=loaded.steps,
            trained_on=loaded.backend,
            played_on=_judge(),
            rewards=episodes.rewards[None],
            lengths=episodes.lengths[None],
            successes=successes[None],
        )
        score = WorldResult(
            world,
            actions,
            row.reward,
            row.interval,
            float(successes.mean()),
            row.length,
            episodes.rewards,
        )
        write_part(path, _made_with(task, loaded), score.to_json())
    return True


def _made_with(task: TransferTask, loaded: LoadedPolicy) -> dict[str, Any]:
    return {"checkpoint": loaded.checkpoint.name, **task.evaluation, "judge": _judge()}


def _judge() -> str:
    return f"minigrid {version('minigrid')}"


def _result(task: TransferTask, loaded: LoadedPolicy, seconds: dict[str, float]) -> RunResult:
    here = provenance(device="cpu", backend=_judge())
    made_with = _made_with(task, loaded)
    scores = [read_part(played_path(task, *game), made_with) for game in task.games]
    return RunResult(
        protocol=task.protocol.name,
        pair=task.pair.name,
        memory=task.memory,
        seed=task.seed,
        steps=loaded.steps,
        config=to_json(task.config),
        evaluation=task.evaluation,
        worlds=tuple(WorldResult.from_json(score) for score in scores if score is not None),
        curve=thin_curve(RunDirectory.open(task.run).read_metrics()),
        seconds=seconds,
        command=tuple(task_words(task)),
        provenance={
            **training_provenance(task.run),
            "playing": {name: here.get(name) for name in KEPT},
        },
        checkpoint=str(loaded.checkpoint.relative_to(task.root)),
    )


class _Clock:
    """Seconds spent on a task, over all its sessions, also those that were killed."""

    EVERY = 10.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = {"training": 0.0, "playing": 0.0}
        if path.is_file():
            self.seconds |= {
                n: float(v) for n, v in read_or_empty(path).items() if n in self.seconds
            }

    @contextmanager
    def running(self, what: str) -> Iterator[Callable[[], bool]]:
        """Count the time within; the function given must be called now and then (it is False)."""
        before, begun = self.seconds[what], time.monotonic()
        noted = begun

        def note() -> None:
            self.seconds[what] = before + time.monotonic() - begun
            if self.path.parent.is_dir():
                write_atomically(self.path, json.dumps(self.seconds).encode())

        def tick() -> bool:
            nonlocal noted
            if time.monotonic() - noted >= self.EVERY:
                noted = time.monotonic()
                note()
            return False

        try:
            yield tick
        finally:
            note()
