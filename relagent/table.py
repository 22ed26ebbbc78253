"""Tables as texts, for terminals and pages."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"
"""Stands in a cell that has no value."""


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
