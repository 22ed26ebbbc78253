"""The instruments of benchmarks/breakdown.py: they change nothing of what they look at."""

from __future__ import annotations

from typing import Any

import pytest
from stable_baselines3.common.logger import Logger

from relagent.memories import RelLSTM
from relagent.rl.train import TrainConfig, make_model
from tests.in_process import load_script


def test_the_kernels_are_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    breakdown = load_script("benchmarks/breakdown.py")
    config = TrainConfig(
        env="MiniGrid-Empty-5x5-v0", n_envs=4, n_steps=8, batch_size=16, n_epochs=1,
        hidden_size=16, exploring_starts=0, short_sight=0, backend="minigrid",
    )  # fmt: skip
    model, _ = make_model(config)
    model.set_logger(Logger(None, []))

    def definition(*_: Any) -> Any:
        raise AssertionError("a sequence was computed by its definition")

    monkeypatch.setattr(RelLSTM, "unroll_definition", definition)
    before, clock = RelLSTM.unroll, breakdown.Clock()
    with breakdown.watched(model, clock):
        model.learn(2 * 4 * 8)
    assert RelLSTM.unroll is before
    assert {
        (phase, stage)
        for phase in ("acting", "learning")
        for stage in ("encoder", "memory", "heads")
    } <= set(clock.seconds)
    assert clock.seconds["learning", "memory"] > 0
