"""Seeds for training and for evaluation, from ranges that never meet."""

from __future__ import annotations

import numpy as np

from relagent.errors import RelagentError

_HALF = 2**30


class SeedError(RelagentError):
    """A seed outside its range."""


def training_seeds(seed: int | None, n: int) -> list[int]:
    """``n`` different seeds in [0, 2**30), hashed from one by ``numpy.random.SeedSequence``.

    Hashing keeps runs of neighbouring seeds apart, whose environments would overlap if they were
    merely numbered from the seed. A longer list begins with the shorter one. Without a seed they
    are drawn.

    Raises:
        SeedError: if the seed is negative.
    """
    if seed is not None and seed < 0:
        raise SeedError(f"seed {seed} is negative: choose 0 or more.")
    # Repeated words are dropped; twice as many as needed are more than ever get lost.
    words = np.random.SeedSequence(seed).generate_state(2 * n + 8) % _HALF
    return list(dict.fromkeys(words.tolist()))[:n]


def evaluation_seeds(n: int, offset: int = 0) -> range:
    """The fixed evaluation seeds number ``offset`` to ``offset + n - 1``, in [2**30, 2**31).

    No training seed is among them.

    Raises:
        SeedError: if they would leave the range.
    """
    if offset < 0 or n < 0 or offset + n > _HALF:
        raise SeedError(
            f"there are no evaluation seeds {offset} to {offset + n - 1}: stay within 0 to "
            f"{_HALF - 1}."
        )
    return range(_HALF + offset, _HALF + offset + n)
