"""How memories are called and drawn in tables, figures and films."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from relagent.memories import MEMORIES
from relagent.picture import COLOURS


class Look(NamedTuple):
    """How a memory is shown."""

    title: str
    """In tables and legends."""
    colour: str
    """Of its lines."""
    style: str = "-"
    """Of its lines, as matplotlib names it."""


_BLUE, _ORANGE, _GREEN, _PINK, _YELLOW, _SKY, _BLACK = COLOURS

# A memory of all states has the colour of the one of few, and is dashed.
LOOKS = {
    "rel-rnn": Look("RelRNN", _BLUE),
    "rel": Look("RelLSTM", _ORANGE),
    "mem-rnn": Look("MemRNN", _BLUE, "--"),
    "mem": Look("MemLSTM", _ORANGE, "--"),
    "lstm": Look("LSTM", _GREEN),
    "orth-rnn": Look("orth-RNN", _PINK),
    "exp-rnn": Look("expRNN", _YELLOW),
    "goru": Look("GORU", _SKY),
    "sab": Look("SAB", _BLACK),
    "gru": Look("GRU", _GREEN, "--"),
    "rnn": Look("RNN", _PINK, "--"),
    "none": Look("no memory", _BLACK, ":"),
}
"""By a memory's registered name; what is not here has a look all the same."""


def look(memory: str) -> Look:
    """Return how a memory is shown; one without a look of its own is called as its class is."""
    return LOOKS.get(memory) or Look(MEMORIES[memory].__name__, _BLACK, "-.")


def title(memory: str) -> str:
    """Return a memory's name in tables and legends."""
    return look(memory).title


def in_order(memories: Iterable[str]) -> tuple[str, ...]:
    """Return each memory once, in the order in which they are shown."""
    known = (*LOOKS, *(memory for memory in MEMORIES if memory not in LOOKS))
    return tuple(sorted(set(memories), key=known.index))
