from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relagent.study.result_file import ResultError
from relagent.study.transfer.results import (
    decode_rewards,
    encode_rewards,
    read_result,
    thin_curve,
)
from relagent.study.transfer.task import TransferTask


@given(arrays(np.float64, st.integers(0, 300), elements=st.floats(0, 1)))
def test_rewards_survive_to_a_hundred_thousandth(rewards: np.ndarray[Any, Any]) -> None:
    back = decode_rewards(encode_rewards(rewards))
    assert back.shape == rewards.shape
    assert np.all(np.abs(back - rewards) <= 1e-5 + 1e-12)


@pytest.mark.parametrize("reward", [-0.1, 1.01, float("nan")])
def test_rewards_of_other_worlds_are_refused(reward: float) -> None:
    with pytest.raises(ResultError, match=r"rewards in \[0, 1\]"):
        encode_rewards(np.array([0.5, reward]))


def test_a_thousand_rewards_take_little_room() -> None:
    lengths = 8 + np.random.default_rng(0).poisson(6, 1000)
    assert len(encode_rewards(1 - 0.9 * lengths / 250)) < 1500


def test_the_file_holds_the_result(done: TransferTask, tmp_path: Path) -> None:
    result = read_result(done.result)
    assert result.name == done.name == "tiny-gotoobject-rel-s0"
    assert [(w.world, w.actions) for w in result.worlds] == done.games
    for world in result.worlds:
        assert len(world.rewards) == 3
        assert world.reward == pytest.approx(world.rewards.mean(), abs=1e-5)
        assert world.success == np.mean(world.rewards > 0)
        assert world.interval[0] <= world.reward <= world.interval[1]
    assert result.command[:4] == ("python", "-m", "relagent.study", "task")
    assert str(tmp_path.parent) not in done.result.read_text()
    assert (done.root / result.checkpoint).is_file()
    copy = tmp_path / "copy.json"
    result.write(copy)
    assert copy.read_bytes() == done.result.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"seed": 0,\n', '"seed": "zero",\n'),
        ('"rewards": "', '"rewards": "??'),
        ('"reward": ', '"reward": 1'),
        ("{", ""),
        ('"curve"', '"curse"'),
        ('"pair": "gotoobject"', '"pair": "gotosubject"'),
        ('"memory": "rel"', '"memory": "rell"'),
        ('"training": ', '"straining": '),
        ('"precision"', '"decision"'),
        ("MiniGrid-GoToObject-8x8-N2-v0", "MiniGrid-GoToObject-9x9-N2-v0"),
    ],
)
def test_damaged_files_are_named(done: TransferTask, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "result.json"
    text = done.result.read_text()
    assert old in text
    # Of a name that stands several times, the first is the result's own.
    path.write_text(text.replace(old, new, 1) if "8x8" not in old else text.replace(old, new))
    with pytest.raises(ResultError, match=str(path)):
        read_result(path)


def test_a_curve_is_thinned_by_averages() -> None:
    rows = [
        {"step": 10 * i, "rollout/ep_rew_mean": i / 10, "rollout/success_rate": 1.0}
        for i in range(1, 11)
    ]
    curve = thin_curve([{"step": 0}, *rows], points=5)
    assert curve["steps"] == [20, 40, 60, 80, 100]
    assert curve["reward"] == pytest.approx([0.15, 0.35, 0.55, 0.75, 0.95])
    assert curve["success"] == [1.0] * 5
    assert thin_curve(rows, points=200)["steps"] == [row["step"] for row in rows]
    assert thin_curve([])["steps"] == []
