"""Learning curves that are short enough for a result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

POINTS = 200


def thin(
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    points: int = POINTS,
    number: Callable[[float], float] = lambda value: round(value, 5),
) -> dict[str, list[float]]:
    """Average a run's metrics over at most ``points`` stretches of equally many rows.

    Args:
        rows: of metrics, each with its ``step``; those that lack a value are left out.
        names: in the curve, and of the metrics they are taken from.
        points: at most.
        number: shortens a number.

    Returns:
        ``steps`` at the end of each stretch, and the means in it by their names.
    """
    known = [row for row in rows if all(row.get(name) is not None for name in names.values())]
    stretches = [s for s in np.array_split(np.arange(len(known)), points) if len(s)]
    curve: dict[str, list[float]] = {"steps": [known[s[-1]]["step"] for s in stretches]}
    for short, name in names.items():
        curve[short] = [number(float(np.mean([known[i][name] for i in s]))) for s in stretches]
    return curve
