"""The tables of the report, as rows of texts and as Markdown."""

from __future__ import annotations

from relagent.envs import Pair
from relagent.looks import title
from relagent.rl.report import short_name
from relagent.study.transfer.aggregate import Estimate
from relagent.study.transfer.untold import solved_untold
from relagent.study.transfer.view import ROLES, Cell, View, paper_numbers, world_of
from relagent.table import NOTHING

PAPER_DIGITS = 2
"""Decimals of the paper's numbers, to which others are rounded where they are compared."""


def table_rows(
    view: View, protocol: str, actions: str = "sampled", bold: tuple[str, str] = ("**", "**")
) -> tuple[list[str], list[list[str]]]:
    """Table 4 beside the paper's numbers.

    Args:
        view: the results.
        protocol: one protocol's.
        actions: ``sampled``, as in the paper, or ``greedy``.
        bold: goes around means above the paper's RelLSTM, to its two decimals.

    Returns:
        The heading, and two rows a pair: mean, interval and every seed.
    """
    memories = view.memories(protocol)
    heading = ["world", "Mem, paper", "Rel, paper", *map(title, memories)]
    rows = []
    for pair in view.pairs(protocol):
        for role in ROLES:
            world = world_of(pair, role)
            paper = paper_numbers(pair, world)
            row = [
                _world(pair, world),
                *(f"{number:.{PAPER_DIGITS}f}" for number in paper.values()),
            ]
            for memory in memories:
                cell = view.cell(protocol, pair, memory, world, actions)
                row.append(_cell(cell, paper["paper_rel"], bold))
            rows.append(row)
    return heading, rows


def _world(pair: Pair, world: str) -> str:
    name = short_name(world)
    return f"{name} (trained)" if world == pair.train_id else f"→ {name}"


def _cell(cell: Cell | None, paper: float | None, bold: tuple[str, str]) -> str:
    if cell is None:
        return NOTHING
    text = f"{cell.mean.value:.3f}"
    if paper is not None and round(cell.mean.value, PAPER_DIGITS) > paper:
        text = f"{bold[0]}{text}{bold[1]}"
    if not cell.several:
        return f"{text} (seed {cell.seeds[0]})"
    seeds = " · ".join(f"{score:.2f}" for score in cell.scores)
    return f"{text} [{cell.mean.low:.3f}, {cell.mean.high:.3f}]<br>{seeds}"


def ladder_rows(view: View, protocol: str) -> tuple[list[str], list[list[str]]]:
    """Every size of every family, with sampled and with greedy actions: means over seeds."""
    memories = view.memories(protocol)
    heading = ["trained on", "world"]
    heading += [f"{title(memory)}, {how}" for memory in memories for how in ("sampled", "greedy")]
    rows = []
    for pair in view.pairs(protocol):
        for world in pair.ladder:
            row = [short_name(pair.train_id), short_name(world)]
            for memory in memories:
                for actions in ("sampled", "greedy"):
                    cell = view.cell(protocol, pair, memory, world, actions)
                    row.append(NOTHING if cell is None else f"{cell.mean.value:.3f}")
            rows.append(row)
    return heading, rows


def untold_rows(view: View, protocol: str) -> tuple[list[str], list[list[str]]]:
    """What can be solved without the mission, beside the paper's numbers; only where it matters."""
    heading = ["world", "minigrid", "gym-minigrid", "Mem, paper", "Rel, paper"]
    rows = []
    for pair in view.pairs(protocol):
        for role in ROLES:
            world = world_of(pair, role)
            bounds = solved_untold(world), solved_untold(world, diagonal=True)
            if None not in bounds:
                numbers = (*bounds, *paper_numbers(pair, world).values())
                row = [f"{number:.2f}" for number in numbers]
                rows.append([short_name(world), *row])
    return heading, rows


def iqm_rows(view: View) -> tuple[list[str], list[list[str]]]:
    """Interquartile mean by protocol and memory, over the pairs that are compared."""
    heading = ["protocol", "memory", "pairs", "seeds", "training worlds", "larger worlds"]
    rows = []
    for protocol in view.protocols:
        memories, pairs = view.compared(protocol)
        found = {role: view.iqm(protocol, role) for role in ROLES}
        for memory in memories:
            if all(memory in found[role] for role in ROLES):
                seeds = found["train"][memory][1]
                texts = [estimate(found[role][memory][0], seeds > 1) for role in ROLES]
                rows.append([protocol, title(memory), str(len(pairs)), str(seeds), *texts])
    return heading, rows


def improvement_rows(view: View, protocol: str) -> tuple[list[str], list[list[str]]]:
    """Probability that RelLSTM beats each other memory, by pair and over all pairs."""
    memories = view.memories(protocol)
    rivals = [memory for memory in memories if memory != "rel"] if "rel" in memories else []
    heading = ["pair"]
    heading += [f"> {title(rival)}, {role}" for rival in rivals for role in ROLES]
    rows = []
    for pair in (*view.pairs(protocol), None):
        row = [pair.name if pair is not None else "all pairs"]
        for rival in rivals:
            for role in ROLES:
                found = view.improvement(protocol, rival, role, pair)
                several = found is not None and min(found[1:3]) > 1
                row.append(NOTHING if found is None else estimate(found[0], several, 2))
        rows.append(row)
    return heading, rows


def estimate(value: Estimate, several: bool, digits: int = 3) -> str:
    """``0.961 [0.955, 0.966]``, or the number alone where one seed gives no interval."""
    if not several:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
