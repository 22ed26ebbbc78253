"""What a run has to tell: means over updates, rows of metrics, seconds."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path

from relagent.runs.files import write_atomically
from relagent.tasks.base import Score, Task


def score_row(split: str, score: Score, task: Task) -> dict[str, float]:
    """Return a score as a row of metrics."""
    row = {f"{split}/loss": score.loss, f"{split}/accuracy": score.accuracy}
    return {**row, f"{split}/bpc": score.bpc} if task.characters else row


class Tally:
    """Sums over the updates since the last row of metrics."""

    def __init__(
        self,
        updates: int = 0,
        loss: float = 0.0,
        norm: float = 0.0,
        correct: int = 0,
        scored: int = 0,
    ) -> None:
        self.updates = updates
        self.loss = loss
        self.norm = norm
        self.correct = correct
        self.scored = scored

    def add(self, loss: float, norm: float, correct: int, scored: int) -> None:
        """Count one update."""
        self.updates += 1
        self.loss += loss
        self.norm += norm
        self.correct += correct
        self.scored += scored

    def score(self) -> Score:
        """Return the means."""
        return Score(self.loss / self.updates, self.correct, self.scored)

    def row(self, split: str, task: Task) -> dict[str, float]:
        """Return the means as a row of metrics."""
        row = score_row(split, self.score(), task)
        return {**row, f"{split}/gradient_norm": self.norm / self.updates}

    def figures(self) -> str:
        """Return the means in words."""
        score = self.score()
        return f"loss {score.loss:.4f}, accuracy {100 * score.accuracy:.1f}%"


class Clock:
    """Seconds of training, resumed parts included; the last ones before a kill are not counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = 0.0
        if path.is_file():
            with suppress(ValueError, TypeError):
                before = float(json.loads(path.read_bytes()))
                self.before = before if math.isfinite(before) else 0.0
        self.begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began, pauses left out."""
        return self.before + time.monotonic() - self.begun

    def save(self) -> None:
        """Note the time, for when the run is resumed."""
        write_atomically(self.path, json.dumps(self.seconds).encode())
