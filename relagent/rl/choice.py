"""Actions drawn from random streams that belong to the rows of a batch, not to the process.

A row's choices then depend on its own stream alone, whichever other rows it is computed with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from torch import Tensor

from relagent.rl.categorical import LeanCategorical


def choose(distribution: Distribution, streams: Sequence[np.random.Generator] | None) -> Tensor:
    """Choose an action for each row.

    Args:
        distribution: of the actions of B rows, as :meth:`MemoryPolicy.distribution` makes it.
        streams: [B], each a row's own, from which it draws; None takes the most probable actions.

    Returns:
        Actions [B, ...], as the distribution has them.

    Raises:
        TypeError: a distribution that the policies here do not make.
    """
    if streams is None:
        return distribution.mode()

    def draw(one: Callable[[np.random.Generator], float | np.ndarray], like: Tensor) -> Tensor:
        drawn = np.array([one(stream) for stream in streams])
        return torch.as_tensor(drawn, dtype=torch.float64, device=like.device)

    match distribution:
        case LeanCategorical(log_probs=logits):
            return _invert(logits, draw(lambda stream: stream.random(), logits))
        case MultiCategoricalDistribution():
            parts = [part.logits for part in distribution.distribution]
            uniform = draw(lambda stream: stream.random(len(parts)), parts[0])
            return torch.stack([_invert(p, u) for p, u in zip(parts, uniform.T, strict=True)], 1)
        case BernoulliDistribution():
            shares = distribution.distribution.probs
            uniform = draw(lambda stream: stream.random(shares.shape[1]), shares)
            return (uniform < shares).to(shares.dtype)
        case DiagGaussianDistribution() if type(distribution) is DiagGaussianDistribution:
            mean, deviation = distribution.distribution.mean, distribution.distribution.stddev
            normal = draw(lambda stream: stream.standard_normal(mean.shape[1]), mean)
            return mean + deviation * normal.to(mean.dtype)
    raise TypeError(f"no way to draw from {type(distribution).__name__} is known here")


def _invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distributions of logits [B, A] at numbers [B] in [0, 1)."""
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    below = uniform[:, None] >= cumulative
    # Rounding may leave the last sum a little below 1.
    return below.sum(dim=1).clamp(max=logits.shape[1] - 1)
