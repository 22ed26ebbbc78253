"""What the tasks of all studies have in common while they are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relagent.runs.checkpoint import CheckpointDamagedError
from relagent.runs.directory import RunDirectory
from relagent.runs.files import read_or_empty, write_atomically
from relagent.study.task import TaskError

KEPT = ("started", "device", "backend", "versions", "git", "platform", "cpu_count")
"""What a result keeps of a provenance; the rest names folders."""


def train_from_wherever(run: Path, begin: Callable[[], bool], go_on: Callable[[int], bool]) -> bool:
    """Train to the end, from wherever a run directory is.

    Args:
        run: the run directory.
        begin: trains from the beginning; called where there is no run.
        go_on: trains from the newest checkpoint, whose step it is told; 0 where there is none yet.

    Returns:
        What the called one returned: whether training went to its end.

    Raises:
        TaskError: no checkpoint can be used.
    """
    if not (run / "config.json").is_file():
        return begin()
    directory = RunDirectory.open(run)
    try:
        step = directory.load_checkpoint().step if directory.saved else 0
    except CheckpointDamagedError as error:
        raise TaskError(f"{error}; remove {run}, and it is trained again") from error
    return go_on(step)


def read_part(path: Path, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    """A score that was kept, or None where there is none that was made with the same."""
    data = read_or_empty(path)
    return data.get("score") if data.get("made_with") == dict(made_with) else None


def write_part(path: Path, made_with: Mapping[str, Any], score: Mapping[str, Any]) -> None:
    """Keep a score until the task is finished, so that it is not made again."""
    path.parent.mkdir(exist_ok=True)
    content = {"made_with": dict(made_with), "score": dict(score)}
    write_atomically(path, json.dumps(content, allow_nan=False).encode())


def training_provenance(run: Path) -> dict[str, Any]:
    """What a run was made with, for its result.

    That is versions, commit and so on of its first session, the same of those that went on, their
    number, and the machine of the last: not of this process, which may have trained nothing.
    """
    made = RunDirectory.open(run).read_provenance()
    sessions = [made, *made.get("resumed", [])]
    training, *resumed = ({name: session.get(name) for name in KEPT} for session in sessions)
    return {
        "training": training,
        "resumed": resumed,
        "sessions": len(sessions),
        "machine": _machine_of(sessions[-1]),
    }


def _machine_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """The machine that a session noted; early ones noted no more than its system and cores."""
    noted = session.get("machine")
    if noted is not None:
        return dict(noted)
    return {"processor": session.get("platform"), "cores": session.get("cpu_count")}
