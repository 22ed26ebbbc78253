"""What is not trained on, or with, and what is said of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.wrappers import ImgObsWrapper
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from relagent.envs import UnsupportedSpaceError
from relagent.rl import MemoryPPO
from relagent.rl.acting import ModelOptionError
from relagent.rl.encoder import EncoderError, GridEncoder
from relagent.rl.policy import PolicyOptionError
from relagent.rl.ppo import TrainingDivergedError

from .worlds import Toy, last_rollout, small_model, toys


class Bad(VecEnvWrapper):
    """Rewards of any kind: of one step not a number, or whole ones."""

    def __init__(self, venv: VecEnv, kind: str) -> None:
        super().__init__(venv)
        self.kind = kind

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        rewards = rewards.astype(np.int64) if self.kind == "whole" else rewards * np.nan
        return observations, rewards, dones, infos


def test_rewards_that_are_no_numbers_are_not_learned_from() -> None:
    model = small_model(Bad(toys(), "not a number"), "rel")
    with pytest.raises(TrainingDivergedError, match=r"diverged by step 48.*learning rate"):
        model.learn(2 * 12 * 4)


def test_rewards_may_be_whole_numbers() -> None:
    model = small_model(Bad(toys(), "whole"), "rel")
    model.learn(4 * 12 * 4)
    assert last_rollout(model).rewards.abs().sum() > 0  # of truncated episodes: values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "a"),
        ("stats_window_size", 0),
        ("gamma", 2),
        ("gae_lambda", "0.9"),
        ("gae_lambda", -0.1),
        ("ent_coef", float("nan")),
        ("clip_range", float("nan")),
        ("clip_range", None),
        ("clip_range", "0.2"),
        ("clip_range_vf", -0.2),
        ("target_kl", 0),
        ("target_kl", "0.1"),
        ("vf_coef", None),
        ("n_steps", 8.0),
    ],
)
def test_impossible_shares_are_refused(name: str, value: object) -> None:
    with pytest.raises(ModelOptionError, match=f"^{name}={value!r} cannot work: use"):
        small_model(toys(), "rel", False, 0, **{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    rates = {"learning_rate": np.float32(1e-3), "clip_range": np.float64(0.2)}
    model = small_model(toys(), "rel", False, 0, **rates, clip_range_vf=np.int64(1))
    model.learn(12 * 4)
    assert model.lr_schedule(1) == pytest.approx(1e-3)


def test_there_must_be_an_environment(tmp_path: Path) -> None:
    nowhere: Any = None
    with pytest.raises(ModelOptionError, match="there is no environment: pass one"):
        MemoryPPO("RelLstmPolicy", nowhere)
    small_model(toys()).save(tmp_path / "model")
    model = MemoryPPO.load(tmp_path / "model")
    with pytest.raises(ModelOptionError, match=r"no environment to learn in.*load\(path, env\)"):
        model.learn(48)


def test_arguments_stand_in_the_order_of_recurrent_ppo() -> None:
    theirs = list(inspect.signature(RecurrentPPO).parameters)
    assert list(inspect.signature(MemoryPPO).parameters)[: len(theirs)] == theirs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nu": 5}, "unknown option 'nu': options of the memory, .* belong in its memory_kwargs"),
        (
            {"hiden_size": 5},
            r"unknown option 'hiden_size' \(did you mean hidden_size\?\): .*memory_kwargs",
        ),
    ],
)
def test_unknown_options_of_the_policy_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelOptionError, match=said):
        MemoryPPO("RelLstmPolicy", toys(), policy_kwargs=options)


def test_options_of_the_memory_have_names() -> None:
    with pytest.raises(PolicyOptionError, match=r"memory_kwargs=\[5, 5\] cannot work: .*by name"):
        MemoryPPO("RelLstmPolicy", toys(), policy_kwargs={"memory_kwargs": [5, 5]})


def test_a_world_as_minigrid_makes_it_is_refused_with_advice() -> None:
    world = gym.make("MiniGrid-DoorKey-5x5-v0")
    with pytest.raises(UnsupportedSpaceError, match=r"DoorKey.*relagent\.envs\.make_env"):
        MemoryPPO("RelLstmPolicy", world)
    with pytest.raises(EncoderError, match=r"\(3, 7, 7\).*relagent\.envs\.make_env"):
        MemoryPPO("RelLstmPolicy", ImgObsWrapper(world))


@pytest.mark.parametrize(
    "actions", [spaces.Discrete(3, start=-1), spaces.MultiDiscrete([2, 3], start=[0, 1])]
)
def test_actions_that_do_not_count_from_0_are_refused(actions: spaces.Space[Any]) -> None:
    world = Toy()
    world.action_space = actions
    with pytest.raises(UnsupportedSpaceError, match=r"Toy takes actions .*only numbers from 0"):
        MemoryPPO("LstmPolicy", world)


def test_the_id_of_a_world_is_enough() -> None:
    model = MemoryPPO("LstmPolicy", "MiniGrid-Empty-5x5-v0", n_steps=8, seed=0)
    model.learn(16)
    assert isinstance(model.policy.features_extractor, GridEncoder)


def test_a_schedule_is_not_asked_for_what_lies_beyond_the_end() -> None:
    asked: list[float] = []

    def rate(left: float) -> float:
        asked.append(left)
        return 1e-3 * left

    small_model(toys(), "lstm", learning_rate=rate).learn(100)  # takes 144 steps
    assert min(asked) == 0


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("n_steps", 0), ("n_epochs", -1)])
def test_impossible_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ModelOptionError, match=f"^{name}={value} .*at least 1") as error:
        small_model(toys(), "rel", False, 0, **{name: value})
    assert "\n" not in str(error.value)


def test_an_unknown_policy_is_named_with_those_that_exist() -> None:
    with pytest.raises(ModelOptionError) as error:
        MemoryPPO("RelLstmPolcy", toys())
    message = str(error.value)
    assert "'RelLstmPolcy'" in message and "did you mean RelLstmPolicy?" in message
    assert all(name in message for name in MemoryPPO.policy_aliases)
    assert "\n" not in message
