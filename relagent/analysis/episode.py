"""Episodes of a trained agent, and which remembered steps its choices depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from minigrid.core.actions import Actions
from numpy.typing import NDArray
from torch import Tensor

from relagent.analysis.gradients import unroll_with_handles, vector_norms
from relagent.envs import GridObservation, UnsupportedSpaceError
from relagent.rl.episodes import MAX_STEPS
from relagent.rl.play import begin_episode, choose_next
from relagent.rl.policy import MemoryPolicy

PICTURE_PIXELS = 160


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, as the agent's memory lived it.

    Attributes:
        policy: in float64, ready to act.
        features: [T, 1, F], what the memory read.
        actions: T numbers.
        names: of the actions that the world knows.
        reward: the sum of the episode's rewards.
        success: whether the world reported success at the end.
        pictures: the whole world before each action; empty outside grid worlds.
    """

    policy: MemoryPolicy
    features: Tensor
    actions: tuple[int, ...]
    names: tuple[str, ...]
    reward: float
    success: bool
    pictures: tuple[NDArray[np.uint8], ...]

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Return log π(a_t) [T] of the actions taken, for the memory's outputs [T, 1, H]."""
        made = self.policy.distribution(outputs[:, 0])
        return made.log_prob(torch.tensor(self.actions, device=outputs.device))

    def last_choice(self, outputs: Tensor) -> Tensor:
        """Return log π(a_T) of the last action."""
        return self.log_probabilities(outputs)[-1]


def play_episode(
    policy: MemoryPolicy,
    env_id: str,
    number: int = 0,
    *,
    greedy: bool = False,
    pictures: bool = False,
    max_steps: int = MAX_STEPS,
) -> Episode:
    """Play an evaluation episode, the one that :func:`relagent.rl.play.play` has at that number.

    Args:
        policy: with Discrete actions; it is copied and stays as it is.
        env_id: a world of the Python package that fits it.
        number: of the evaluation episode, from 0.
        greedy: take the most probable action instead of sampling.
        pictures: keep what the world looked like.
        max_steps: where an episode is cut off in a world without a time limit of its own.

    Raises:
        WorldMismatchError, UnsupportedSpaceError: the world does not fit the policy.
        SeedError: there is no episode of this number.
    """
    if not isinstance(policy.action_space, spaces.Discrete):
        raise UnsupportedSpaceError(
            f"this agent's actions are {policy.action_space}: only choices among Discrete actions "
            "can be looked into here"
        )
    count = int(policy.action_space.n)
    policy, row = begin_episode(policy, env_id, number, max_steps)
    grid = isinstance(row.env, GridObservation)
    state = policy.initial_state(1)
    features, actions, shown = [], [], []
    over = False
    while not over:
        if pictures and grid:
            shown.append(_picture(row.env.unwrapped))
        choice = choose_next(policy, row, state, greedy=greedy)
        state = choice.state
        features.append(choice.features)
        actions.append(choice.action)
        over = row.step(choice.action)
    row.env.close()
    return Episode(
        policy=policy,
        features=torch.stack(features),
        actions=tuple(actions),
        names=tuple(Actions(i).name if grid else str(i) for i in range(count)),
        reward=row.reward,
        success=bool(row.success),
        pictures=tuple(shown),
    )


def choice_gradients(episode: Episode, rows: int = 100) -> tuple[list[int], NDArray[np.float64]]:
    """Return ‖∇_{h_t} log π(a_T)‖ for the actions of an episode and all earlier steps.

    Args:
        episode: of T steps.
        rows: of how many actions at most, evenly spread; the last is always among them.

    Returns:
        The steps of the actions [R], and [R, T]; not-a-number where t is after the action.
    """
    steps = len(episode.actions)
    chosen = np.unique(np.linspace(steps - 1, 0, min(rows, steps)).round().astype(int)).tolist()
    run = unroll_with_handles(episode.policy.memory, episode.features)
    with torch.enable_grad():
        log_probabilities = episode.log_probabilities(run.outputs)
    norms = np.full((len(chosen), steps), np.nan)
    for row, step in enumerate(chosen):
        (gradient,) = torch.autograd.grad(
            log_probabilities[step], run.handles, retain_graph=row + 1 < len(chosen)
        )
        norms[row, : step + 1] = vector_norms(gradient[: step + 1, 0]).numpy()
    return chosen, norms


def _picture(world: Any) -> NDArray[np.uint8]:
    tile = max(4, PICTURE_PIXELS // max(world.width, world.height))
    return np.asarray(world.get_frame(highlight=True, tile_size=tile, agent_pov=False))
