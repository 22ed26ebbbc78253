"""The state of all runs, read from their folders: a live table, or lines in a log file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relagent.runs.progress import rate_words
from relagent.study.task import Task
from relagent.table import NOTHING

State = Literal["waiting", "training", "scoring", "finished", "stopped", "failed"]

STYLES: dict[State, str] = {
    "finished": "green",
    "training": "cyan",
    "scoring": "magenta",
    "failed": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
}


@dataclass
class Line:
    """One run of the table.

    Attributes:
        task: what is run.
        state: where it is.
        done: steps or updates trained so far.
        figure: what the task says of how well it goes.
        rate: of training, a second, since this program watches.
        scored: how many scores are there.
        note: why it failed.
    """

    task: Task
    state: State = "waiting"
    done: int = 0
    figure: float | None = None
    rate: float | None = None
    scored: int = 0
    note: str = ""
    _first: tuple[float, int] | None = field(default=None, repr=False)

    @property
    def active(self) -> bool:
        """Whether it is being worked on."""
        return self.state in ("training", "scoring")

    @property
    def eta(self) -> float | None:
        """Seconds until training ends."""
        if self.state != "training" or not self.rate:
            return None
        return max(0.0, (self.task.total - self.done) / self.rate)

    def look(self, now: float) -> None:
        """Read how far the run is."""
        row = last_row(self.task.run / "metrics.jsonl")
        if row is not None:
            done = row["step"]
            if done != self.done:
                if self._first is None or done < self._first[1]:
                    self._first = now, done
                elif now > self._first[0]:
                    self.rate = (done - self._first[1]) / (now - self._first[0])
            self.done = done
            figure = self.task.read_figure(row)
            self.figure = self.figure if figure is None else figure
        if self.active:
            self.scored = sum(path.exists() for path in self.task.scores)
            if self.task.trained(self.done):
                self.state = "scoring"

    def finish(self) -> None:
        """Read the result."""
        self.done, self.figure = self.task.outcome()
        self.state, self.scored = "finished", len(self.task.scores)

    def cells(self) -> tuple[str, ...]:
        """As texts: run, state, steps, steps/s, figure, time left."""
        state: str = self.state
        if self.state == "scoring":
            state = f"{self.task.scoring} {self.scored}/{len(self.task.scores)}"
        return (
            self.task.name,
            f"{state}: {self.note}" if self.note else state,
            f"{self.done:,}",
            rate_words(self.rate) if self.rate and self.active else NOTHING,
            f"{self.figure:.3f}" if self.figure is not None else NOTHING,
            duration(self.eta),
        )


def last_row(path: Path) -> dict[str, int] | None:
    """The last whole row of a metrics file, which may be in the middle of being written."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2**14))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            return row
    return None


def duration(seconds: float | None) -> str:
    """``1 h 05 min``, ``12 min``, ``40 s`` or a dash."""
    if seconds is None:
        return NOTHING
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


class Board:
    """All runs of a study.

    Args:
        tasks: in the order of the table, all of one study.
        console: where it goes.
        lines_every: seconds between two lines for each active run where that is no terminal.
    """

    def __init__(
        self, tasks: Sequence[Task], console: Console | None = None, lines_every: float = 60.0
    ) -> None:
        self.lines = {task.name: Line(task) for task in tasks}
        self.unit, self.figure = (tasks[0].unit, tasks[0].figure) if tasks else ("steps", "")
        self.console = console or Console(stderr=True)
        self.lines_every = lines_every
        self._said = time.monotonic()

    def __getitem__(self, task: Task) -> Line:
        return self.lines[task.name]

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines.values())

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(line.state in states for line in self)

    def set(self, task: Task, state: State, note: str = "") -> None:
        """Change a run's state."""
        line = self[task]
        if state == "finished":
            line.finish()
        line.state, line.note = state, note
        if line.active:  # it may be one that goes on
            line.look(time.monotonic())
        if not self.console.is_terminal:
            self._say(line)

    def refresh(self) -> None:
        """Look at all active runs."""
        now = time.monotonic()
        speak = not self.console.is_terminal and now - self._said >= self.lines_every
        for line in self:
            if line.active:
                line.look(now)
                if speak:
                    self._say(line)
        if speak:
            self._said = now

    def _say(self, line: Line) -> None:
        name, state, done, rate, figure, left = line.cells()
        text = f"{name}: {state}, {done} {self.unit}"
        if line.state == "training" and line.rate:
            text += f", {rate} {self.unit}/s, {left} left"
        if line.figure is not None:
            text += f", {self.figure} {figure}"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the table within, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self.table, console=self.console, refresh_per_second=2):
            yield

    def table(self) -> Table:
        """All runs, or, where the terminal is too low, the ones that matter most now."""
        shown = self._shown(max(5, self.console.height - 6))
        counts = ", ".join(f"{n} {state}" for state in STYLES if (n := self.count(state)))
        headings = ("run", "state", self.unit, f"{self.unit}/s", self.figure, "training left")
        table = Table(box=box.SIMPLE_HEAD, caption=f"{counts}; {self._left()}")
        for heading in headings:
            right = heading not in ("run", "state")
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        for line in shown:
            cells = [Text(cell) for cell in line.cells()]
            table.add_row(*cells, style=STYLES[line.state])
        return table

    def _shown(self, rows: int) -> list[Line]:
        lines = list(self)
        if len(lines) <= rows:
            return lines
        # The ones at work, then what went wrong, the next to come, and the last finished.
        rank = {"training": 0, "scoring": 0, "failed": 1, "stopped": 1, "waiting": 2, "finished": 3}
        chosen = sorted(lines, key=lambda line: rank[line.state])[:rows]
        return [line for line in lines if any(line is other for other in chosen)]

    def _left(self) -> str:
        rates = sum(line.rate or 0.0 for line in self if line.state == "training")
        unfinished: Iterable[Line] = (
            line for line in self if line.state in ("waiting", "training")
        )
        left = sum(line.task.total - line.done for line in unfinished)
        return f"training left {duration(left / rates if rates else None)}"
