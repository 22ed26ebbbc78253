"""What accompanies training: checkpoints, a look into the memory, a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure as LoggedFigure
from stable_baselines3.common.utils import safe_mean

from relagent.analysis.attention_map import attention_matrix, draw_attention, one_episode
from relagent.analysis.measures import attended_age, attention_entropy
from relagent.memories.attention import AttentiveMemory
from relagent.memories.base import Attention
from relagent.memories.relevancy import RelevancyMemory
from relagent.runs.progress import TrainingProgress

if TYPE_CHECKING:
    from relagent.rl.ppo import MemoryPPO


class CheckpointCallback(BaseCallback):
    """Save between two rollouts: now and then, and when training is asked to stop.

    Args:
        every: environment steps between two checkpoints.
        save: called at each checkpoint; true where it is a regular one, false where training is
            about to stop.
        stop: says whether training was asked to stop.
    """

    def __init__(self, every: int, save: Callable[[bool], None], stop: Callable[[], bool]) -> None:
        super().__init__()
        self.every = every
        self.save = save
        self.stop = stop
        self.stopped = False
        self.saved_at = 0

    def _on_training_start(self) -> None:
        self._next = (self.num_timesteps // self.every + 1) * self.every

    @property
    def due(self) -> bool:
        """Whether a regular checkpoint is to be made before training goes on."""
        return self.model.num_timesteps >= self._next

    def _on_rollout_start(self) -> None:
        # Between two rollouts everything is settled: the update is done, the next one not begun.
        # A regular checkpoint is made also where training stops, since it changes what follows.
        steps = self.model.num_timesteps
        regular, self.stopped = self.due, self.stop()
        if regular or self.stopped:
            self.save(regular)
            self.saved_at = steps
        if regular:
            self._next = (steps // self.every + 1) * self.every

    def _on_step(self) -> bool:
        return not self.stopped


class AttentionCallback(BaseCallback):
    """Log what an attentive memory does, and now and then a picture of a real episode.

    Args:
        every: rollouts between two looks.
        picture_every: looks between two pictures.
        n_envs: environments to look at.
    """

    def __init__(self, every: int = 10, picture_every: int = 3, n_envs: int = 4) -> None:
        super().__init__()
        self.every = every
        self.picture_every = picture_every
        self.n_envs = n_envs
        self.model: MemoryPPO

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        memory = self.model.policy.memory
        rollout = self.model.rollout
        if rollout is None or not isinstance(memory, AttentiveMemory):
            return
        # Counted in steps, not in calls, so that a resumed run looks at the same moments.
        turn = self.model.num_timesteps // (rollout.n_steps * rollout.n_envs)
        if turn % self.every:
            return
        batch = rollout.take(torch.arange(min(self.n_envs, rollout.n_envs)))
        look = self.model.policy.trace(batch.observations, batch.start_state, batch.episode_starts)
        rho = memory.rho if isinstance(memory, RelevancyMemory) else None
        for name, value in attention_statistics(look, rho).items():
            self.logger.record(f"memory/{name}", value)
        if turn % (self.every * self.picture_every):
            return
        episode = one_episode(look, batch.episode_starts)
        if episode is not None:
            from matplotlib.figure import Figure  # slow to import: only where it is needed

            figure = Figure(figsize=(4, 4), layout="constrained")
            draw_attention(
                attention_matrix(*episode), figure.subplots(), "attention in one episode"
            )
            self.logger.record(
                "memory/attention_map",
                LoggedFigure(figure, close=True),
                exclude=("metrics", "stdout", "log", "json", "csv"),
            )


def attention_statistics(look: Attention, rho: int | None) -> dict[str, float]:
    """Summarise a trace [T, B, K].

    Args:
        look: the trace.
        rho: number of leading slots that are the relevant set, ``None`` where there is none.

    Returns:
        ``attention_entropy`` in nats and ``attended_age`` (mean age weighted by attention), and of
        a relevant set ``relevant_age`` (mean age of its members) and ``relevant_turnover`` (members
        replaced per step).
    """
    statistics = {
        "attention_entropy": attention_entropy(look).mean().item(),
        "attended_age": attended_age(look).mean().item(),
    }
    if rho:
        members = look.ages[..., :rho]
        present = members >= 0
        if present.any():
            statistics["relevant_age"] = members[present].double().mean().item()
        replaced = look.admitted & (look.evicted >= 0)
        statistics["relevant_turnover"] = replaced.double().mean().item()
    return statistics


class ProgressCallback(BaseCallback):
    """Show steps, steps/s, time left, mean reward and success rate.

    Args:
        progress: where; who made it closes it, since callbacks are not told of an error.
    """

    def __init__(self, progress: TrainingProgress) -> None:
        super().__init__()
        self.progress = progress

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.progress.update(self.num_timesteps, self._result())

    def _result(self) -> str:
        episodes, successes = self.model.ep_info_buffer, self.model.ep_success_buffer
        if not episodes:
            return ""
        reward = f"reward {safe_mean([episode['r'] for episode in episodes]):.3f}"
        if not successes:
            return reward
        return f"{reward}, success {100 * float(np.mean(successes)):.0f}%"
