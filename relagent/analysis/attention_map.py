"""Attention as a picture: which earlier steps each step looked at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from relagent.memories import Attention

CELLS = 300
"""A picture has at most so many cells on a side: thinner lines could not be seen."""


def attention_matrix(weights: Tensor, ages: Tensor) -> np.ndarray:
    """Order attention by the time of what was remembered, not by slot.

    Args:
        weights: [T, K] of one row, from :meth:`relagent.memories.Memory.trace`.
        ages: [T, K], -1 for an empty slot.

    Returns:
        [T, T]: row t, column i holds the weight of h_i at step t; not-a-number where h_i was not
        remembered any more (or not yet). What was remembered from before the first row is left out.
    """
    steps = len(weights)
    matrix = np.full((steps, steps), np.nan)
    now, slot = np.nonzero(ages.cpu().numpy() >= 0)
    then = now - ages.cpu().numpy()[now, slot]
    seen = then >= 0
    matrix[now[seen], then[seen]] = weights.cpu().numpy()[now[seen], slot[seen]]
    return matrix


def darkest(matrix: np.ndarray) -> float:
    """Return the weight that only one in a hundred passes, for the darkest shade of a picture.

    The first step always attends to itself alone, so the maximum says nothing.
    """
    return float(np.nanquantile(matrix, 0.99))


def draw_attention(matrix: np.ndarray, axes: Any, title: str = "", *, most: float = 1.0) -> Any:
    """Draw an attention matrix: time runs down, the remembered past runs to the right.

    Forgotten states are blank, remembered ones shaded by their weight. Of more than ``CELLS``
    steps, neighbours share a cell, which shows the largest weight among them.

    Args:
        matrix: [T, T] of :func:`attention_matrix`.
        axes: to draw into.
        title: above it.
        most: the weight of the darkest shade.

    Returns:
        The image, for a colour bar.
    """
    steps = len(matrix)
    shared = -(-steps // CELLS)
    cells = _largest_of_blocks(matrix, shared)
    end = len(cells) * shared - 0.5
    image = axes.imshow(
        cells,
        vmin=0,
        vmax=most,
        cmap="magma_r",
        interpolation="nearest",
        extent=(-0.5, end, end, -0.5),
    )
    axes.set_xlim(-0.5, steps - 0.5)
    axes.set_ylim(steps - 0.5, -0.5)
    axes.set_facecolor("0.92")
    axes.set_xlabel("remembered step")
    axes.set_ylabel("step")
    axes.set_title(title)
    return image


def _largest_of_blocks(matrix: np.ndarray, size: int) -> np.ndarray:
    """Return the largest number in each block of a square matrix; not-a-number where none is.

    A mean would wash out the thin lines of a sparse memory.
    """
    if size == 1:
        return matrix
    count = -(-len(matrix) // size)
    padded = np.full((count * size, count * size), -np.inf)
    padded[: len(matrix), : len(matrix)] = np.nan_to_num(matrix, nan=-np.inf)
    largest: np.ndarray = padded.reshape(count, size, count, size).max(axis=(1, 3))
    return np.where(np.isneginf(largest), np.nan, largest)


def one_episode(look: Attention, episode_starts: Tensor) -> tuple[Tensor, Tensor] | None:
    """Cut the longest whole episode out of a trace.

    Args:
        look: a trace of [T, B, K].
        episode_starts: [T, B].

    Returns:
        Weights and ages [length, K] of the episode, or ``None`` where no episode of at least two
        steps both starts and ends inside the trace.
    """
    best: tuple[int, int, int] | None = None
    for row in range(episode_starts.shape[1]):
        starts: list[int] = episode_starts[:, row].nonzero().flatten().tolist()
        for begin, end in pairwise(starts):
            if end - begin >= 2 and (best is None or end - begin > best[1] - best[0]):
                best = (begin, end, row)
    if best is None:
        return None
    begin, end, row = best
    return look.weights[begin:end, row], look.ages[begin:end, row]
