"""How well the best agent does that is not told its mission: bounds from the worlds' rules.

GoToObject, GoToDoor and Fetch draw their goal at random among what stands there, and name it in the
mission alone. The other worlds always mean the same.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations, product

KINDS = 2 * 6
"""Kinds of objects in Fetch: keys and balls of six colours."""

_WORLD = re.compile(r"MiniGrid-(GoToObject|GoToDoor|Fetch)-(\d+)x\d+(?:-N(\d+))?-v0")


def solved_untold(world: str, *, diagonal: bool = False) -> float | None:
    """Return the largest share of episodes that can be solved without reading the mission.

    - GoToDoor: one door of four is meant, and no cell lies in front of two.
    - Fetch: of N objects the most frequent kind is the best guess, since any of it will do.
    - GoToObject: a cell that is next to both objects serves whichever is meant; where there is
      none, one of the two is guessed.

    Args:
        world: the id of an environment.
        diagonal: whether diagonal neighbours count as next to an object, as they did in GoToObject
            when it was part of gym-minigrid.

    Returns:
        The share, or ``None`` where the mission always means the same.
    """
    match = _WORLD.fullmatch(world)
    if match is None:
        return None
    family, size, objects = match.groups()
    if family == "GoToDoor":
        return 1 / 4
    if family == "Fetch":
        return _most_frequent(int(objects))
    both = _next_to_both(int(size) - 2, diagonal)  # inside its walls
    return both + (1 - both) / 2


def _most_frequent(objects: int) -> float:
    """The expected share that the most frequent kind has of so many random objects."""
    counts = [max(Counter(kinds).values()) for kinds in product(range(KINDS), repeat=objects)]
    return sum(counts) / len(counts) / objects


def _next_to_both(side: int, diagonal: bool) -> float:
    """The share of pairs of cells in a square room that have a free neighbour in common."""
    cells = list(product(range(side), repeat=2))

    def neighbours(x: int, y: int) -> set[tuple[int, int]]:
        near = ((x + dx, y + dy) for dx, dy in product((-1, 0, 1), repeat=2))
        reach = 2 if diagonal else 1
        return {(i, j) for i, j in near if 0 < abs(i - x) + abs(j - y) <= reach}.intersection(cells)

    pairs = list(permutations(cells, 2))
    shared = [neighbours(*one) & neighbours(*other) for one, other in pairs]
    return sum(map(bool, shared)) / len(pairs)
