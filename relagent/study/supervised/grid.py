"""What each study runs unless it is told otherwise, and what the paper reports of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relagent.memories import MEMORIES, MemoryOptionError
from relagent.study.task import TaskError
from relagent.tasks.config import OPTIONS, settings_of

Cell = tuple[int | None, str]
"""A delay T (None where the task has none) and a memory."""


class GridError(TaskError):
    """Memories or delays that the default grid does not join."""


@dataclass(frozen=True)
class Grid:
    """The default cells of a study.

    Attributes:
        rows: delays, and the memories that are run at each of them.
        budget: updates (copy, denoise) or epochs (mnist, ptb) of a run that is not solved before.
        seeds: how many.
        form: settings of the task itself, where they are not its defaults.
        settings: all others, for tasks of that form alone.
    """

    rows: tuple[tuple[tuple[int | None, ...], tuple[str, ...]], ...]
    budget: int
    seeds: int = 1
    form: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def settings_of(self, memory: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what differs from the defaults of relagent.tasks.

        Args:
            memory: settings that it does not take are left out, of the grid's and of the given.
            given: settings that were asked for; they come before the grid's.
        """
        others = set(OPTIONS) - settings_of(memory)
        own = {name: value for name, value in self.settings.items() if name not in others}
        if "hidden_size" in own and not _can_have(memory, own["hidden_size"]):
            del own["hidden_size"]  # it keeps that of the defaults
        given = {name: value for name, value in given.items() if name not in others}
        usual = all(given.get(name, value) == value for name, value in self.form.items())
        return {**self.form, **(own if usual else {}), **given}

    @property
    def defaults(self) -> dict[str, str]:
        """In words, the settings of a study that are not the defaults of relagent.tasks."""
        usual = " ".join(f"--{name} {value}" for name, value in self.form.items())
        form = {name: str(value) for name, value in self.form.items()}
        return form | {name: f"{value} with {usual}" for name, value in self.settings.items()}

    @property
    def cells(self) -> list[Cell]:
        """All of them."""
        return [(T, memory) for delays, row in self.rows for T in delays for memory in row]


def _can_have(memory: str, hidden_size: int) -> bool:
    try:
        MEMORIES[memory].check_hidden_size(hidden_size)
    except MemoryOptionError:
        return False
    return True


# Memories and delays of copy are those of Table 5 of the appendix of Kerg et al. 2020, with GORU
# (figure 4) and MemLSTM beside them; where a delay is long, those whose columns tell most. Denoise
# has the delays of its figures 4 to 6 up to 500. Budgets: 200,000 updates are the most that the
# authors' code takes on copy, 100 epochs on PTB. Chosen for MNIST: 7 pixels at a step (as in figure
# 9), 100 units, batches of 32, one step size for all (a tenth of it for rotations), halved on a
# stall, and 6 epochs, which take minutes where single pixels take hours. Chosen for all: one seed,
# as more can be asked for.
GRIDS: dict[str, Grid] = {
    "copy": Grid(
        rows=(
            (
                (100, 200, 300),
                ("rel-rnn", "rel", "lstm", "mem-rnn", "mem", "exp-rnn", "orth-rnn", "goru", "sab"),
            ),
            ((500, 1000), ("rel-rnn", "rel", "lstm", "exp-rnn", "orth-rnn")),
            ((2000,), ("rel-rnn", "rel")),
        ),
        budget=200_000,
    ),
    "denoise": Grid(
        rows=(((100, 200, 300, 500), ("rel-rnn", "rel", "lstm", "goru", "exp-rnn")),),
        budget=200_000,
    ),
    "mnist": Grid(
        rows=(((None,), ("rel-rnn", "rel", "lstm", "exp-rnn")),),
        budget=6,
        form={"group": 7},
        settings={
            "hidden_size": 100,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "orthogonal_learning_rate": 2e-4,
            "halve_on_stall": True,
        },
    ),
    "ptb": Grid(rows=(((None,), ("rel-rnn", "lstm")),), budget=100),
}

OUT_OF_MEMORY = "out of memory"

PAPER_COPY: dict[str, dict[int, str]] = {
    "lstm": {100: "100%", 200: "100%", 300: "100%", 500: "12%", 1000: "12%", 2000: "12%"},
    "orth-rnn": {100: "100%", 200: "100%", 300: "100%", 500: "100%", 1000: "80%", 2000: "11%"},
    "exp-rnn": dict.fromkeys((100, 200, 300, 500, 1000, 2000), "100%"),
    "mem-rnn": {
        **dict.fromkeys((100, 200, 300, 500, 1000), "100%"),
        2000: OUT_OF_MEMORY,
    },
    "sab": dict.fromkeys((100, 200, 300, 500, 1000, 2000), "100%"),
    "rel-rnn": dict.fromkeys((100, 200, 300, 500, 1000, 2000), "100%"),
    "rel": dict.fromkeys((100, 200, 300, 500, 1000, 2000), "100%"),
}
"""Table 5: accuracy on copy at each T; without the number of seeds."""

FIRST = ("rel-rnn", "rel", "lstm")
"""These memories come before the others."""

TRANSFER_T = 100
TRANSFER_MEMORIES = ("rel-rnn", "rel", "lstm", "mem-rnn", "exp-rnn")
TRANSFER_DELAYS = (200, 400, 1000, 2000, 5000)
"""Copy runs of these memories at that T are also scored at these delays."""


def sequences(memory: str, T: int) -> tuple[int, int]:
    """Number of batches and their size of a score at another delay.

    Chosen so that one takes about a minute at most on a busy core, where the authors' code takes
    100 batches of 100. Attention to all earlier states costs T² at each sequence.
    """
    if memory in ("mem-rnn", "mem"):
        return (10, 100) if T <= 1000 else (2, 100) if T <= 2000 else (1, 20)
    return 10, 100


def chosen_cells(
    study: str, memories: Sequence[str] | None, delays: Sequence[int] | None
) -> list[Cell]:
    """The cells of a study that are asked for, in the order of the grid.

    Args:
        study: one of :data:`GRIDS`.
        memories: of the default grid those; together with ``delays``, all of their pairs.
        delays: likewise.

    Raises:
        GridError: a memory or a delay alone that the default grid does not have.
    """
    if memories and delays:
        return [(T, memory) for T in dict.fromkeys(delays) for memory in dict.fromkeys(memories)]
    cells = GRIDS[study].cells
    for known, asked, word, other in (
        ({memory for _, memory in cells}, memories, "memory", "--T"),
        ({T for T, _ in cells}, delays, "delay", "--memories"),
    ):
        for name in asked or ():
            if name not in known:
                if {T for T, _ in cells} == {None}:
                    return [(None, memory) for memory in dict.fromkeys(memories or ())]
                raise GridError(
                    f"{word} {name} is not in the default grid of {study}: say {other} too"
                )
    return [
        (T, memory)
        for T, memory in cells
        if (not memories or memory in memories) and (not delays or T in delays)
    ]
