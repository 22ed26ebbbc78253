"""What training logs of a memory: its statistics, and a picture of one episode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger

from relagent.analysis.attention_map import attention_matrix, one_episode
from relagent.memories import Attention
from relagent.rl.callbacks import AttentionCallback, attention_statistics
from relagent.rl.ppo import MemoryPPO

from .worlds import Watch, small_model, world


def test_statistics_of_a_trace_by_hand() -> None:
    """Two steps of one row: one slot of a relevant set, then two of a buffer."""
    look = Attention(
        weights=torch.tensor([[[0.0, 0.5, 0.5]], [[0.25, 0.25, 0.5]]]),
        relevance=torch.zeros(2, 1, 3),
        ages=torch.tensor([[[-1, 1, 0]], [[4, 1, 0]]]),
        admitted=torch.tensor([[True], [True]]),
        evicted=torch.tensor([[-1], [7]]),
    )
    entropy = (math.log(2) + 0.5 * math.log(4) + 0.5 * math.log(2)) / 2
    attended = {"attention_entropy": entropy, "attended_age": (0.5 + 1.25) / 2}
    assert attention_statistics(look, None) == pytest.approx(attended)
    # Of the relevant slot: empty at first, then of age 4, in the place of one that was forgotten.
    relevant = {"relevant_age": 4.0, "relevant_turnover": 0.5}
    assert attention_statistics(look, 1) == pytest.approx({**attended, **relevant})
    empty = look._replace(ages=torch.full_like(look.ages, -1))
    assert "relevant_age" not in attention_statistics(empty, 1)


class Kept(KVWriter):
    """Everything that is logged."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], *_: object, **__: object) -> None:
        self.values.update(key_values)

    def close(self) -> None:
        """Nothing is held open."""


def test_the_longest_episode_of_a_rollout_is_drawn() -> None:
    model = small_model(world("grid"), "rel", n_steps=40, batch_size=40)
    kept = Kept()
    model.set_logger(Logger(None, [kept]))
    drawn: list[np.ndarray] = []

    def look(model: MemoryPPO) -> None:
        rollout = model.rollout
        assert rollout is not None
        batch = rollout.take(torch.arange(2))
        traced = model.policy.trace(batch.observations, batch.start_state, batch.episode_starts)
        episode = one_episode(traced, batch.episode_starts)
        assert episode is not None
        drawn.append(attention_matrix(*episode))

    callbacks = [Watch(rollout_end=look), AttentionCallback(every=1, picture_every=1, n_envs=2)]
    model.learn(40 * 4, callback=callbacks)
    (axes,) = kept.values["memory/attention_map"].figure.axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.array_equal(shown, drawn[-1], equal_nan=True)
    assert {"memory/relevant_age", "memory/relevant_turnover"} <= kept.values.keys()
