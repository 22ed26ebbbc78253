"""The distribution over discrete actions."""

from __future__ import annotations

from typing import Any, Self

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor
from torch.distributions import Categorical


class LeanCategorical(CategoricalDistribution):
    """stable-baselines3's, with half of the steps: one softmax serves all, and nothing is checked.

    Logits must be finite.
    """

    log_probs: Tensor
    """[N, A]."""

    @property
    def distribution(self) -> Categorical:  # type: ignore[override]  # made only where asked for
        """The same as a distribution of torch."""
        return Categorical(logits=self.log_probs)

    def proba_distribution(self, action_logits: Tensor) -> Self:
        """Take logits [N, A]."""
        self.log_probs = action_logits.log_softmax(dim=-1)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities [N] of actions [N]."""
        return self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropies [N] in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def sample(self) -> Tensor:
        """Draw actions [N]: the first of A arrivals whose rates are the probabilities."""
        arrivals = torch.empty_like(self.log_probs).exponential_()
        return (self.log_probs.exp() / arrivals).argmax(dim=-1)

    def mode(self) -> Tensor:
        """Return the most probable actions [N]."""
        return self.log_probs.argmax(dim=-1)


def lean(distribution: Any) -> Any:
    """Return the lean twin of a distribution, or itself where there is none."""
    if type(distribution) is CategoricalDistribution:
        return LeanCategorical(distribution.action_dim)
    return distribution
