"""Every memory has a name and a look of its own, and a new one needs no line for it."""

from __future__ import annotations

import pytest

from relagent.looks import LOOKS, in_order, look, title
from relagent.memories import GRU, MEMORIES
from relagent.study.transfer.figures import colour, marker


class Trace(GRU):
    """A memory of one's own."""


def test_looks_differ() -> None:
    assert set(LOOKS) == set(MEMORIES)
    assert len({(look.colour, look.style) for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.title for look in LOOKS.values()}) == len(LOOKS)
    assert len({(colour(memory), marker(memory)) for memory in MEMORIES}) == len(MEMORIES)


def test_a_memory_of_ones_own_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMORIES, "trace", Trace)
    assert title("trace") == "Trace" and title("rel") == "RelLSTM"
    assert look("trace")[1:] not in {look[1:] for look in LOOKS.values()}
    assert in_order(["trace", "lstm", "rel", "trace"]) == ("rel", "lstm", "trace")
    others = {(colour(memory), marker(memory)) for memory in LOOKS}
    assert (colour("trace"), marker("trace")) not in others
