"""PPO's loss of a minibatch."""

from __future__ import annotations

import torch
from torch import Tensor

from relagent.rl.rollout import Minibatch


def ppo_loss(
    batch: Minibatch,
    values: Tensor,
    log_prob: Tensor,
    entropy: Tensor | None,
    *,
    clip_range: float,
    clip_range_vf: float | None,
    ent_coef: float,
    vf_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the clipped surrogate with value loss and entropy bonus (Schulman et al. 2017, eq. 9).

    With r the ratio of new to old probability of an action and means over the agent's own actions::

        - mean min(r A, clip(r, 1 - ε, 1 + ε) A) + vf_coef mean (V - R)² - ent_coef mean H

    Args:
        batch: what was experienced [T, B].
        values: V under the current weights [T, B].
        log_prob: of the batch's actions [T, B].
        entropy: H [T, B]; without a closed form it is estimated from the actions taken.
        clip_range: ε.
        clip_range_vf: values are clipped to this distance from the old ones; ``None``: not at all.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.

    Returns:
        The loss, and what to log of it: scalars without gradient.
    """
    own = batch.own.to(values.dtype).flatten()
    weight = own / own.sum().clamp(min=1)  # [T·B], adds up to 1

    def mean(numbers: Tensor) -> Tensor:
        return torch.dot(numbers.flatten(), weight)

    log_ratio = log_prob - batch.old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -mean(torch.min(batch.advantages * ratio, batch.advantages * clipped))

    if clip_range_vf is not None:
        change = (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
        values = batch.old_values + change
    value_loss = mean((values - batch.returns).square())

    entropy_loss = mean(log_prob) if entropy is None else -mean(entropy)

    loss = policy_loss + ent_coef * entropy_loss + vf_coef * value_loss
    with torch.no_grad():
        statistics = {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy_loss": entropy_loss.detach(),
            # An estimate that is never negative (Schulman 2020, "Approximating KL divergence").
            "approx_kl": mean(ratio - 1 - log_ratio),
            "clip_fraction": mean(((ratio - 1).abs() > clip_range).to(ratio.dtype)),
        }
    return loss, statistics
