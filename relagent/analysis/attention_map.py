"""Attention as a picture: which earlier steps each step looked at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from relagent.memories import Attention


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


def draw_attention(matrix: np.ndarray, axes: Any, title: str = "") -> Any:
    """Draw an attention matrix: time runs down, the remembered past runs to the right.

    Forgotten states are blank, remembered ones shaded by their weight.

    Returns:
        The image, for a colour bar.
    """
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="magma_r", interpolation="nearest")
    axes.set_facecolor("0.92")
    axes.set_xlabel("remembered step")
    axes.set_ylabel("step")
    axes.set_title(title)
    return image


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
