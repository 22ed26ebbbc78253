"""Scores as a table, with intervals: terminal, JSON, CSV, Markdown and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich import box
from rich.console import Console
from rich.table import Table

from relagent.errors import RelagentError
from relagent.runs.files import write_atomically, writing
from relagent.table import NOTHING, csv_text, markdown

RESAMPLES = 10_000
LEVEL = 0.95

INTERVALS = (
    f"Intervals: {LEVEL:.0%} percentile bootstrap, {RESAMPLES:,} resamples: of the episodes where "
    "there is one seed (the interval then speaks of that one run), of the seeds and the episodes "
    "where there are several (all play the same layouts, so a resample has the same episodes for "
    "all). Of few seeds they are too narrow: of three that differ more than the layouts do, about "
    "seven in ten intervals hold the true mean."
)
PAPER = (
    "Paper: Table 4 of Kerg et al. (2020), given without intervals, obtained with code that "
    "emptied the memory at every step of acting."
)


class SampleError(RelagentError):
    """Samples that no interval can be made of."""


def bootstrap_interval(
    samples: ArrayLike, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over runs and episodes.

    Runs are drawn with replacement, and episodes with replacement, the same ones for all runs:
    where all runs play the same layouts, the two are crossed, not nested (the pigeonhole bootstrap,
    Owen 2007). With one run only the episodes vary.

    Args:
        samples: [S, N], or [N] for one run: a number for each run and episode.
        level: how much of the bootstrap distribution the interval holds.
        resamples: number of resamples.
        seed: of a stream of its own, so that the same samples have the same interval.

    Returns:
        The lower and the upper end.

    Raises:
        SampleError: there are no samples, or they are not numbers in rows of equal length.
    """
    table = np.atleast_2d(np.asarray(samples, dtype=np.float64))
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise SampleError(
            f"an interval needs finite samples [runs, episodes], not {list(table.shape)} with "
            "gaps: play each run for the same number of episodes"
        )
    generator = np.random.default_rng(seed)
    runs, episodes = table.shape
    means = np.empty(resamples)
    block = max(1, 2**20 // episodes)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        of_runs = table @ _shares(generator, size, episodes).T  # [S, N] @ [N, size] -> [S, size]
        means[start : start + size] = (of_runs * _shares(generator, size, runs).T).sum(axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _shares(generator: np.random.Generator, size: int, n: int) -> np.ndarray:
    """How often each of n was drawn in n draws with replacement, as a share: [size, n]."""
    draws = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(draws.ravel(), minlength=size * n).reshape(size, n) / n


@dataclass(frozen=True)
class Row:
    """The scores of S runs, that differ only in their seed, in one world.

    Attributes:
        train: the world they were trained in.
        world: the world they were played in.
        memory: the memory's name, with what else tells these runs from others.
        actions: ``sampled`` or ``greedy``.
        paper: the paper's average reward, if it has one.
        seeds: the runs' seeds.
        steps: environment steps they were trained for.
        trained_on: what simulated their training.
        played_on: what simulated the episodes here.
        rewards: [S, N], each episode's sum of rewards.
        lengths: [S, N], steps.
        successes: [S, N] bool, ``None`` where the world does not speak of success.
    """

    train: str
    world: str
    memory: str
    actions: str
    paper: float | None
    seeds: tuple[int, ...]
    steps: int
    trained_on: str
    played_on: str
    rewards: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None

    @cached_property
    def reward(self) -> float:
        """Mean reward over seeds and episodes."""
        return float(self.rewards.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Interval of the mean reward."""
        return bootstrap_interval(self.rewards)

    @cached_property
    def success(self) -> float | None:
        """Share of successful episodes."""
        return None if self.successes is None else float(self.successes.mean())

    @cached_property
    def length(self) -> float:
        """Mean length of an episode in steps."""
        return float(self.lengths.mean())

    @cached_property
    def cells(self) -> dict[str, str]:
        """The row as texts, by the heading of their column."""
        low, high = self.interval
        seeds, episodes = self.rewards.shape
        return {
            "train → world": f"{short_name(self.train)} → {short_name(self.world, self.train)}",
            "memory": self.memory,
            "actions": self.actions,
            f"reward [{LEVEL:.0%}]": f"{self.reward:.3f} [{low:.3f}, {high:.3f}]",
            "success": NOTHING if self.success is None else f"{self.success:.1%}",
            "length": f"{self.length:.1f}",
            "paper": NOTHING if self.paper is None else f"{self.paper:.2f}",
            "seeds × episodes": f"{seeds} × {episodes:,}",
            "steps": f"{self.steps:,}",
            "trained on": self.trained_on,
            "played on": self.played_on,
        }

    def numbers(self) -> dict[str, Any]:
        """The row as plain values, without the single episodes."""
        low, high = self.interval
        return {
            "train": self.train,
            "world": self.world,
            "memory": self.memory,
            "actions": self.actions,
            "reward": self.reward,
            "reward_low": low,
            "reward_high": high,
            "success": self.success,
            "length": self.length,
            "paper": self.paper,
            "seeds": len(self.seeds),
            "episodes": self.rewards.shape[1],
            "steps": self.steps,
            "trained_on": self.trained_on,
            "played_on": self.played_on,
        }

    def by_seed(self) -> list[dict[str, Any]]:
        """What each run did, episode by episode, as plain values."""
        runs: list[dict[str, Any]] = [
            {
                "seed": seed,
                "reward": float(rewards.mean()),
                "success": None,
                "length": float(lengths.mean()),
                "rewards": np.round(rewards, 6).tolist(),
                "lengths": lengths.tolist(),
                "successes": None,
            }
            for seed, rewards, lengths in zip(self.seeds, self.rewards, self.lengths, strict=True)
        ]
        if self.successes is not None:
            for run, successes in zip(runs, self.successes, strict=True):
                run["success"] = float(successes.mean())
                run["successes"] = successes.astype(int).tolist()
        return runs


@dataclass(frozen=True)
class Report:
    """All rows, and where they come from.

    Attributes:
        rows: in the order of the table.
        notes: what the reader should know about the choice of worlds.
        config: the settings of the evaluation.
        provenance: versions, command and machine of the evaluation.
        runs: name, checkpoint, steps, backend and settings of each run.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]

    @cached_property
    def headings(self) -> list[str]:
        """The table's columns; success and paper only where a row has one."""
        silent = {
            heading
            for heading in ("success", "paper")
            if all(row.cells[heading] == NOTHING for row in self.rows)
        }
        return [heading for heading in self.rows[0].cells if heading not in silent]

    @cached_property
    def caption(self) -> str:
        """How to read the columns."""
        return f"{INTERVALS} {PAPER}" if "paper" in self.headings else INTERVALS

    def print(self, console: Console) -> None:
        """Show the table in a terminal; what all rows share stands in one line below it."""
        shared = {
            heading: self.rows[0].cells[heading]
            for heading in ("seeds × episodes", "steps", "trained on", "played on")
            if len({row.cells[heading] for row in self.rows}) == 1
        }
        headings = [heading for heading in self.headings if heading not in shared]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in headings:
            number = heading in ("success", "length", "paper", "steps")
            table.add_column(
                heading,
                justify="right" if number else "left",
                # A narrow terminal breaks names, but no number.
                no_wrap=heading not in ("train → world", "memory"),
                overflow="fold",
            )
        before: Row | None = None
        for row in self.rows:
            if before is not None and (row.train, row.memory) != (before.train, before.memory):
                table.add_section()
            table.add_row(*(row.cells[heading] for heading in headings))
            before = row
        console.print(table)
        if shared:
            line = ", ".join(f"{heading} {text}" for heading, text in shared.items())
            console.print(f"All rows: {line}.", highlight=False, markup=False)
        console.print(self.caption, style="dim", highlight=False, markup=False)
        for note in self.notes:
            console.print(f"note: {note}", highlight=False, markup=False)

    def write(self, folder: Path) -> None:
        """Write transfer.json, .csv, .md and .png, over those of an earlier report.

        Raises:
            WriteError: no permission or no space.
        """
        from relagent.rl.figure import transfer_figure

        contents = {
            "json": self.to_json().encode(),
            "csv": self.to_csv().encode(),
            "md": self.to_markdown().encode(),
            "png": transfer_figure(self.rows),
        }
        for suffix, content in contents.items():
            path = folder / f"transfer.{suffix}"
            with writing(path):
                write_atomically(path, content)

    def to_json(self) -> str:
        """Everything, down to the single episode, as JSON without blanks."""
        data = {
            "format": 1,
            "config": dict(self.config),
            "provenance": dict(self.provenance),
            "runs": [dict(run) for run in self.runs],
            "notes": list(self.notes),
            "caption": self.caption,
            "rows": [row.numbers() | {"by_seed": row.by_seed()} for row in self.rows],
        }
        return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"

    def to_csv(self) -> str:
        """One line a row, all numbers in full."""
        return csv_text([row.numbers() for row in self.rows])

    def to_markdown(self) -> str:
        """The table that :meth:`print` shows."""
        rows = [[row.cells[heading] for heading in self.headings] for row in self.rows]
        table = markdown(self.headings, rows)
        notes = "".join(f"\nNote: {note}\n" for note in self.notes)
        return f"{table}\n{self.caption}\n{notes}"


def short_name(env_id: str, beside: str = "") -> str:
    """``DoorKey-5x5`` of ``MiniGrid-DoorKey-5x5-v0``; ``5x5`` beside another ``DoorKey``."""
    if not env_id.startswith(("MiniGrid-", "BabyAI-")):
        return env_id
    name = env_id.removeprefix("MiniGrid-").removesuffix("-v0")
    family, dash, size = name.partition("-")
    same = dash and short_name(beside).startswith(family + dash) if beside else False
    return size if same else name
