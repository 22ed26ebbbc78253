"""Training into a run directory: what is refused before there is one, how it ends on an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.envs.empty import EmptyEnv
from rich.progress import Progress

from relagent.envs import ObservationPartsError, UnknownEnvironmentError, UnsupportedSpaceError
from relagent.rl.checkpoint import load_policy
from relagent.rl.play import check_world
from relagent.rl.ppo import MemoryPPO, TrainingDivergedError
from relagent.rl.train import TrainConfig, make_model, resume, train
from relagent.runs.config import ConfigError, to_json
from relagent.runs.directory import RunDamagedError, RunError
from relagent.tasks.defaults import default_config

SMALL: dict[str, Any] = {
    "memory": "none",
    "steps": 16,
    "n_envs": 2,
    "n_steps": 4,
    "batch_size": 8,
    "n_epochs": 1,
    "hidden_size": 8,
    "device": "cpu",
}


class Pictures(gym.Env[Any, Any]):
    """A world of pictures with channels last."""

    observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("relagent-pictures-v0", entry_point=lambda **_: Pictures(), max_episode_steps=5)
    return "relagent-pictures-v0"


def test_pictures_are_refused_before_there_is_a_run(tmp_path: Path, pictures: str) -> None:
    with pytest.raises(UnsupportedSpaceError, match="pictures with channels last") as caught:
        train(TrainConfig(env=pictures, **SMALL), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_world_that_cannot_begin_is_refused_before_there_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks_a_package(*_: Any, **__: Any) -> None:
        raise gym.error.DependencyNotInstalled("imageio is missing")

    world = "MiniGrid-Empty-5x5-v0"  # EnvPool has it, too
    config = TrainConfig(env=world, **SMALL)
    policy = make_model(config)[0].policy
    monkeypatch.setattr(EmptyEnv, "reset", lacks_a_package)
    for call in (lambda: train(config, tmp_path / "run"), lambda: check_world(policy, world)):
        with pytest.raises(UnknownEnvironmentError, match=r"cannot begin.*imageio is missing"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_grid_is_not_trained_on_unseen() -> None:
    with pytest.raises(ConfigError, match="image must be among them"):
        TrainConfig(env="MiniGrid-Empty-5x5-v0", parts=("direction", "previous_action"))
    with pytest.raises(ObservationPartsError, match="choose one or more"):
        TrainConfig(env="MiniGrid-Empty-5x5-v0", parts=("sound",))


def test_an_error_leaves_the_terminal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(Progress, "start", lambda _: shown.append(True))
    monkeypatch.setattr(Progress, "stop", lambda _: shown.append(False))

    def diverge(model: MemoryPPO) -> None:
        raise TrainingDivergedError(model.num_timesteps)

    monkeypatch.setattr(MemoryPPO, "train", diverge)
    with pytest.raises(TrainingDivergedError):
        train(TrainConfig(env="CartPole-v1", **SMALL), tmp_path / "run")
    assert shown == [True, False]


def test_settings_of_another_run_are_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = TrainConfig(env="MiniGrid-Empty-5x5-v0", **{**SMALL, "memory": "rel"})
    train(config, run)
    assert load_policy(run).config == config
    for change, said in (
        ({"nu": 7}, r"it says nu 7, but .* made with 5"),
        ({"memory": "lstm"}, r"it says memory lstm, but checkpoint-\S+ was made with rel"),
        ({"hidden_size": 9}, "it says hidden_size 9, but .* made with 8"),
        ({"seed": 1}, "it says seed 1, but .* made with 0"),
        ({"env": "MiniGrid-Empty-6x6-v0"}, "it says env .*6x6-v0, but .* made with .*5x5-v0"),
    ):
        (run / "config.json").write_text(json.dumps(to_json(replace(config, **change))))
        for use in (load_policy, resume):
            with pytest.raises(RunDamagedError, match=said):
                use(run)


def test_a_supervised_run_is_no_agent(tmp_path: Path) -> None:
    settings = to_json(default_config("copy", "rel"))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    for use in (load_policy, resume):
        with pytest.raises(RunError, match=r"is a run of the task copy, .*tasks copy --resume /"):
            use(tmp_path)
