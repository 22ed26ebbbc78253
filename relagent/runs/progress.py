"""How far training is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINES_EVERY = 30.0
"""Seconds between two lines."""


class TrainingProgress:
    """Shows what is done, its rate, the time left and the last figures; a context.

    Args:
        total: steps or updates of the whole run.
        done: of those, done before.
        unit: what is counted.
    """

    def __init__(self, total: int, done: int, unit: str) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self.figures = ""
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn(f"{{task.completed:,}}/{{task.total:,}} {unit}"),
            BarColumn(),
            TaskProgressColumn(),
            _Rate(unit),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=done, figures="")
        self.first: tuple[float, int] | None = None  # when the rate begins, and with how much done
        self.spoken = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, figures: str | None = None) -> None:
        """Say how much is done and, where there are new ones, the figures."""
        self.done = done
        self.figures = self.figures if figures is None else figures
        self.bar.update(self.task, completed=done, figures=self.figures)
        now = time.monotonic()
        if self.first is None:  # what was before compiled kernels
            self.first = now, done
        if not self.console.is_terminal and now - self.spoken >= LINES_EVERY:
            self.spoken = now
            begun, before = self.first
            rate = (done - before) / (now - begun) if now > begun else 0.0
            left = (self.total - done) / rate / 60 if rate else 0.0
            parts = [
                f"{done:,}/{self.total:,} {self.unit}",
                f"{rate_words(rate)} {self.unit}/s, {left:.1f} min left" if rate else "",
                self.figures,
            ]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    """Steps or updates per second of this process."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{rate_words(task.speed) if task.speed else '-'} {self.unit}/s")


def rate_words(value: float) -> str:
    """Steps or updates per second, with a decimal where it tells something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
