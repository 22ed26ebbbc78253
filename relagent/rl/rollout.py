"""What was experienced between two updates: time-major, with one start state per environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from relagent.memories import AnyState, take_rows
from relagent.rl.policy import Recall


class Minibatch(NamedTuple):
    """The whole rollout of some of the environments (T steps, B environments)."""

    observations: PyTorchObs
    """[T, B, ...]."""
    actions: Tensor
    """[T, B, ...]."""
    episode_starts: Tensor
    """[T, B] Boolean."""
    start_state: AnyState
    """The memories before the first step: constants."""
    old_values: Tensor
    """[T, B]."""
    old_log_prob: Tensor
    """[T, B]."""
    advantages: Tensor
    """[T, B]."""
    returns: Tensor
    """[T, B]."""
    own: Tensor
    """[T, B] Boolean: where the action was the agent's own choice; only there it learns."""


class Rollout:
    """T steps of E environments.

    Args:
        n_steps: T.
        n_envs: E.
        start_state: the memories of all environments before the first step.
        recall: what its observations are told apart by.
    """

    def __init__(self, n_steps: int, n_envs: int, start_state: AnyState, recall: Recall) -> None:
        self.n_steps = n_steps
        self.n_envs = n_envs
        self.start_state = start_state
        self.recall = recall
        self._steps: dict[str, list[Tensor]] = {}
        self._observations: list[PyTorchObs] = []

    def add(
        self,
        observations: PyTorchObs,
        episode_starts: Tensor,
        actions: Tensor,
        rewards: Tensor,
        values: Tensor,
        log_prob: Tensor,
        own: Tensor,
    ) -> None:
        """Add one step of all environments; every tensor is [E, ...]."""
        self._observations.append(observations)
        step = {
            "episode_starts": episode_starts,
            "actions": actions,
            "rewards": rewards,
            "values": values,
            "log_prob": log_prob,
            "own": own,
        }
        for name, tensor in step.items():
            self._steps.setdefault(name, []).append(tensor)

    def finish(self, last_values: Tensor, dones: Tensor, gamma: float, gae_lambda: float) -> None:
        """Stack the steps and compute advantages and returns.

        Args:
            last_values: V of the observations after the last step [E].
            dones: whether the last step ended an episode [E].
            gamma: discount γ.
            gae_lambda: λ of generalised advantage estimation.
        """
        for name, steps in self._steps.items():
            setattr(self, name, torch.stack(steps))
        self._steps.clear()
        first = self._observations[0]
        self.observations: PyTorchObs = (
            {key: torch.stack([obs[key] for obs in self._observations]) for key in first}  # type: ignore[index]  # all steps have the type of the first
            if isinstance(first, dict)
            else torch.stack(self._observations)  # type: ignore[arg-type]
        )
        self._observations.clear()
        self.advantages = gae(
            self.rewards, self.values, self.episode_starts, last_values, dones, gamma, gae_lambda
        )
        self.returns = self.advantages + self.values

    episode_starts: Tensor
    actions: Tensor
    rewards: Tensor
    values: Tensor
    log_prob: Tensor
    own: Tensor

    def minibatches(
        self, n_batches: int, generator: torch.Generator | None = None
    ) -> Iterator[Minibatch]:
        """Deal the environments out at random into ``n_batches`` groups of nearly equal size."""
        order = torch.randperm(self.n_envs, generator=generator)
        for envs in order.tensor_split(n_batches):
            yield self.take(envs)

    def take(self, envs: Tensor) -> Minibatch:
        """Return the rollouts of the given environments [B]."""
        observations = self.observations
        envs = envs.to(self.values.device)

        def of(values: Tensor) -> Tensor:
            return values.index_select(1, envs)

        return Minibatch(
            observations={key: of(value) for key, value in observations.items()}
            if isinstance(observations, dict)
            else of(observations),
            actions=of(self.actions),
            episode_starts=of(self.episode_starts),
            start_state=take_rows(self.start_state, envs),
            old_values=of(self.values),
            old_log_prob=of(self.log_prob),
            advantages=of(self.advantages),
            returns=of(self.returns),
            own=of(self.own),
        )


def gae(
    rewards: Tensor,
    values: Tensor,
    episode_starts: Tensor,
    last_values: Tensor,
    dones: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16).

        δ_t = r_t + γ V_{t+1} - V_t      A_t = δ_t + γ λ A_{t+1}

    Nothing flows back over the end of an episode; a truncated episode has its bootstrap value in
    its last reward already.

    Args:
        rewards: [T, E].
        values: [T, E].
        episode_starts: [T, E], true where a step is the first of its episode.
        last_values: V of the observations after the last step [E].
        dones: [E], whether the last step ended an episode.
        gamma: γ.
        gae_lambda: λ.

    Returns:
        [T, E].
    """
    goes_on = torch.cat([~episode_starts[1:], ~dones.unsqueeze(0)]).to(values.dtype)
    next_values = torch.cat([values[1:], last_values.unsqueeze(0)])
    deltas = rewards + gamma * next_values * goes_on - values
    decay = gamma * gae_lambda * goes_on
    advantages = torch.empty_like(deltas)
    ahead = torch.zeros_like(last_values)
    for t in range(len(deltas) - 1, -1, -1):
        ahead = deltas[t] + decay[t] * ahead
        advantages[t] = ahead
    return advantages
