"""The results of a study as tables of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from relagent.envs import PAIRS, Pair
from relagent.looks import in_order
from relagent.rl.report import short_name
from relagent.study.transfer.aggregate import (
    Estimate,
    estimate_improvement,
    estimate_iqm,
    estimate_mean,
)
from relagent.study.transfer.protocol import NAMES, load_protocol
from relagent.study.transfer.results import RunResult

Role = Literal["train", "test"]
ROLES: tuple[Role, ...] = ("train", "test")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """The scores of one memory in one world.

    Attributes:
        seeds: of the runs.
        scores: mean reward of each run.
        successes: share of successful episodes of each run.
        lengths: mean episode length of each run.
        steps: training steps of each run.
    """

    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    successes: tuple[float, ...]
    lengths: tuple[float, ...]
    steps: tuple[int, ...]

    @cached_property
    def mean(self) -> Estimate:
        """Mean over seeds; with one seed, an interval of no width says nothing."""
        return estimate_mean(np.array(self.scores)[:, None])

    @property
    def several(self) -> bool:
        """Whether there are seeds enough for an interval."""
        return len(self.seeds) > 1


class View:
    """Everything that the report shows, computed from the results alone.

    Args:
        results: of any protocols, pairs, memories and seeds.
    """

    def __init__(self, results: Sequence[RunResult]) -> None:
        self.results = tuple(sorted(results, key=lambda result: (result.name, result.seed)))

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols that have results, the known ones first."""
        found = {result.protocol for result in self.results}
        return (*(n for n in NAMES if n in found), *sorted(found - set(NAMES)))

    def memories(self, protocol: str) -> tuple[str, ...]:
        """Names of the memories that have results."""
        return in_order(r.memory for r in self.results if r.protocol == protocol)

    def pairs(self, protocol: str) -> tuple[Pair, ...]:
        """The pairs that have results."""
        found = {r.pair for r in self.results if r.protocol == protocol}
        return tuple(pair for pair in PAIRS if pair.name in found)

    def runs(self, protocol: str, pair: str, memory: str) -> list[RunResult]:
        """The runs of one row of the grid, by seed."""
        chosen = [
            r for r in self.results if (r.protocol, r.pair, r.memory) == (protocol, pair, memory)
        ]
        return sorted(chosen, key=lambda result: result.seed)

    def cell(
        self, protocol: str, pair: Pair, memory: str, world: str, actions: str = "sampled"
    ) -> Cell | None:
        """The scores in a world, None where no run was played there."""
        runs = self.runs(protocol, pair.name, memory)
        found = [(run, score) for run in runs if (score := run.world(world, actions)) is not None]
        if not found:
            return None
        return Cell(
            seeds=tuple(run.seed for run, _ in found),
            scores=tuple(score.reward for _, score in found),
            successes=tuple(score.success for _, score in found),
            lengths=tuple(score.length for _, score in found),
            steps=tuple(run.steps for run, _ in found),
        )

    def scores(self, protocol: str, memory: str, role: Role, pairs: Sequence[Pair]) -> Array | None:
        """Mean rewards [seeds, pairs] of the seeds that ran all of these pairs, None for none."""
        rows: dict[int, list[float]] = {}
        for pair in pairs:
            cell = self.cell(protocol, pair, memory, world_of(pair, role))
            for seed, score in zip(cell.seeds, cell.scores, strict=True) if cell else ():
                rows.setdefault(seed, []).append(score)
        whole = [row for _, row in sorted(rows.items()) if len(row) == len(pairs)]
        return np.array(whole) if whole and pairs else None

    def common_pairs(self, protocol: str, memories: Sequence[str]) -> tuple[Pair, ...]:
        """The pairs that all of these memories have a run of."""
        return tuple(
            pair
            for pair in self.pairs(protocol)
            if all(self.runs(protocol, pair.name, memory) for memory in memories)
        )

    def compared(self, protocol: str) -> tuple[tuple[str, ...], tuple[Pair, ...]]:
        """The memories that are compared over all pairs together, and those pairs.

        The pairs are those of the memory that has run most; a memory that lacks some of them is
        left out, so that a few runs of one do not narrow the comparison of the others.
        """
        memories = self.memories(protocol)
        have = {memory: self.common_pairs(protocol, (memory,)) for memory in memories}
        pairs = max(have.values(), key=len)
        return tuple(m for m in memories if all(pair in have[m] for pair in pairs)), pairs

    def matrices(self, protocol: str, role: Role) -> dict[str, Array]:
        """The score matrices of the memories that :meth:`compared` names, over its pairs."""
        memories, pairs = self.compared(protocol)
        found = {memory: self.scores(protocol, memory, role, pairs) for memory in memories}
        return {memory: table for memory, table in found.items() if table is not None}

    @property
    def aggregates(self) -> bool:
        """Whether there are any: a seed must have run all pairs that are compared."""
        return any(self.matrices(protocol, "test") for protocol in self.protocols)

    def iqm(self, protocol: str, role: Role) -> dict[str, tuple[Estimate, int]]:
        """Interquartile mean and number of seeds by memory."""
        return {
            memory: (estimate_iqm(table), len(table))
            for memory, table in self.matrices(protocol, role).items()
        }

    def improvement(
        self, protocol: str, rival: str, role: Role, pair: Pair | None = None
    ) -> tuple[Estimate, int, int] | None:
        """Probability that RelLSTM beats another memory, and the least numbers of seeds of both.

        Args:
            protocol: its name.
            rival: the other memory.
            role: in the training or in the test worlds.
            pair: one pair; None takes all that both have run, each with all of its seeds.
        """
        pairs = (pair,) if pair is not None else self.common_pairs(protocol, ("rel", rival))
        left, right = (
            [
                cell.scores
                for pair in pairs
                if (cell := self.cell(protocol, pair, memory, world_of(pair, role)))
            ]
            for memory in ("rel", rival)
        )
        if not left or len(left) != len(right):
            return None
        return estimate_improvement(left, right), min(map(len, left)), min(map(len, right))

    def missing(self) -> dict[str, dict[str, list[int]]]:
        """What the protocols plan and no result has: ``"ours rel"`` -> pair -> seeds."""
        steps = {(r.protocol, r.memory, r.pair, r.seed): r.config["steps"] for r in self.results}
        gaps: dict[str, dict[str, list[int]]] = {}
        for name in NAMES:
            plan = load_protocol(name)
            for memory in plan.memories:
                for pair in PAIRS:
                    for seed in range(plan.seeds):
                        planned = plan.config(pair, memory, seed).steps
                        if steps.get((name, memory, pair.name, seed)) != planned:
                            row = gaps.setdefault(f"{name} {memory}", {})
                            row.setdefault(pair.name, []).append(seed)
        return gaps

    def rows(self) -> list[dict[str, Any]]:
        """One row for each protocol, world, memory and kind of actions, for the CSV file."""
        table = []
        for protocol in self.protocols:
            for pair in self.pairs(protocol):
                for world in pair.ladder:
                    for memory in self.memories(protocol):
                        for actions in ("sampled", "greedy"):
                            cell = self.cell(protocol, pair, memory, world, actions)
                            if cell is not None:
                                row = {
                                    "protocol": protocol,
                                    "train": pair.train_id,
                                    "world": world,
                                    "memory": memory,
                                    "actions": actions,
                                }
                                table.append(row | _numbers(cell) | paper_numbers(pair, world))
        return table


def planned_steps(run: RunResult) -> int:
    """Training steps that a known protocol plans for such a run."""
    pair = next(pair for pair in PAIRS if pair.name == run.pair)
    return load_protocol(run.protocol).config(pair, run.memory, run.seed).steps


def _numbers(cell: Cell) -> dict[str, Any]:
    mean, low, high = cell.mean
    return {
        "reward": round(mean, 5),
        "reward_low": round(low, 5) if cell.several else None,
        "reward_high": round(high, 5) if cell.several else None,
        "success": round(float(np.mean(cell.successes)), 5),
        "length": round(float(np.mean(cell.lengths)), 2),
        "seeds": " ".join(map(str, cell.seeds)),
        "reward_by_seed": " ".join(f"{score:.5f}" for score in cell.scores),
        "steps": " ".join(map(str, sorted(set(cell.steps)))),
    }


def paper_numbers(pair: Pair, world: str) -> dict[str, float | None]:
    """The paper's rewards in a world: ``paper_mem`` and ``paper_rel``, None where it has none."""
    place: Mapping[str, int] = {pair.train_id: 0, pair.test_id: 1}
    return {
        f"paper_{memory}": pair.paper[memory][place[world]] if world in place else None
        for memory in ("mem", "rel")
    }


def world_of(pair: Pair, role: Role) -> str:
    """The pair's training or test world."""
    return pair.train_id if role == "train" else pair.test_id


def size_of(world: str) -> str:
    """What tells a world from others of its family: ``16x16``, ``S13``."""
    found = re.search(r"S?\d.*", short_name(world))
    return found[0] if found else short_name(world)
