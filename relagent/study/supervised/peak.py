"""Peak memory of a pass forward and back against copy's delay, and where it would be too much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from relagent.memories import MEMORIES
from relagent.runs.files import write_atomically
from relagent.runs.machine import machine
from relagent.study.result_file import ResultError

FILE = "peak.json"
LIMIT = 16_000.0
"""MB that a graphics card of the paper's time has."""


class PeakPoint(NamedTuple):
    """One measurement, in MB."""

    memory: str
    T: int
    definition: float
    """By the memory's definition, as the authors' code computes."""
    kernel: float
    """By the kernel, where the memory has one."""


@dataclass(frozen=True)
class Peaks:
    """All measurements, and what they were made with.

    Attributes:
        points: by memory and T.
        batch_size: sequences in the batch.
        hidden_size: of the memories.
        machine: see :func:`relagent.runs.machine.machine`.
    """

    points: tuple[PeakPoint, ...]
    batch_size: int
    hidden_size: int
    machine: Mapping[str, Any]

    def memories(self) -> list[str]:
        """Those that were measured, in order."""
        return list(dict.fromkeys(point.memory for point in self.points))

    def fit(self, memory: str) -> tuple[float, float, float] | None:
        """The least squares a + b T + c T² of the definition's MB; None for fewer than 3 points."""
        points = [point for point in self.points if point.memory == memory]
        if len(points) < 3:
            return None
        c, b, a = np.polyfit([p.T for p in points], [p.definition for p in points], 2)
        return float(a), float(b), float(c)

    def at(self, memory: str, T: float) -> float:
        """MB of the definition at any T, by the fit."""
        a, b, c = self.fit(memory) or (0.0, 0.0, 0.0)
        return a + b * T + c * T * T

    def crossing(self, memory: str, limit: float = LIMIT) -> float | None:
        """The T at which the definition's fit passes a limit in MB; None where it never does."""
        found = self.fit(memory)
        if found is None:
            return None
        a, b, c = found
        roots = np.roots([c, b, a - limit])
        real = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
        return min(real, default=None)


def measure(
    memories: Sequence[str], delays: Sequence[int], known: Peaks | None = None
) -> Iterator[tuple[PeakPoint, Peaks]]:
    """Measure one update of each memory at each delay, in processes of their own.

    Args:
        memories: their names.
        delays: of copy.
        known: earlier measurements, which stay, but for the points that are measured again.

    Yields:
        Each point, and all measurements so far.

    Raises:
        PeakError: a process died, most often because memory was short; or ``known`` is of other
            sizes or another machine.
    """
    from relagent.analysis.peak import PeakError, peak_megabytes
    from relagent.tasks.defaults import default_config

    points = {(point.memory, point.T): point for point in known.points} if known else {}
    for memory in memories:
        for T in delays:
            config = default_config("copy", memory, T=T)
            found = Peaks((), config.batch_size, config.hidden_size, machine())
            if known is not None and replace(known, points=()) != found:
                raise PeakError(
                    "the measurements that are there were made with other sizes or on another "
                    "machine: choose another --results, or remove them"
                )
            definition, kernel = (peak_megabytes(config, definition=d) for d in (True, False))
            point = PeakPoint(memory, T, round(definition, 1), round(kernel, 1))
            points[memory, T] = point
            yield point, replace(found, points=tuple(sorted(points.values())))


def write(path: Path, peaks: Peaks) -> None:
    """Write measurements as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**asdict(peaks), "points": [point._asdict() for point in peaks.points]}
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


def read(path: Path) -> Peaks | None:
    """Read what :func:`write` wrote; None where there is no file.

    Raises:
        ResultError: it is none.
    """
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
        points = tuple(PeakPoint(**point) for point in data["points"])
        if unknown := {point.memory for point in points} - set(MEMORIES):
            raise ValueError(f"no memory {', '.join(sorted(unknown))}")
        return Peaks(points, data["batch_size"], data["hidden_size"], data["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(
            f"{path} holds no measurements ({type(error).__name__}: {error}): remove it"
        ) from error
