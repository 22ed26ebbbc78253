"""A model that is saved and loaded is the same model; what cannot be stored is asked for."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from relagent.memories import AnyState, Memory
from relagent.memories.cells import LSTMCell
from relagent.rl import MemoryPPO, load_policy
from relagent.rl.acting import ModelOptionError
from relagent.rl.checkpoint import (
    ModelMismatchError,
    make_policy,
    model_state,
    space_of,
    space_state,
)
from relagent.rl.policy import PolicyOptionError
from relagent.rl.train import TrainConfig, make_model, resume
from relagent.runs.checkpoint import CheckpointDamagedError, save_file
from relagent.runs.directory import RunDirectory
from relagent.runs.packing import pack, unpack

from .worlds import same_weights, small_model, toys, weights


class Own(Memory[AnyState]):
    """A memory of one's own, which no file can hold; its state is a plain tuple."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = LSTMCell(input_size, hidden_size)

    def initial_state(self, batch: int) -> AnyState:
        return self.zeros(batch, self.hidden_size), self.zeros(batch, self.hidden_size)

    def step(self, x: Tensor, state: AnyState) -> tuple[Tensor, AnyState]:
        h, c = self.cell(x, *state)
        return h, (h, c)


def test_a_name_of_two_things_is_not_guessed(tmp_path: Path) -> None:
    model = small_model(toys(), "rel")
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    with pytest.raises(ModelOptionError, match="name the file with its suffix"):
        MemoryPPO.load(tmp_path / "model")
    assert same_weights(weights(model), weights(MemoryPPO.load(tmp_path / "model.safetensors")))


def test_weights_of_a_saved_model_are_taken(tmp_path: Path) -> None:
    model, other = small_model(toys(), "rel"), small_model(toys(), "rel", seed=1)
    model.learn(64)
    model.save(tmp_path / "model")
    assert not same_weights(weights(model), weights(other))
    other.set_parameters(tmp_path / "model")
    assert same_weights(weights(model), weights(other))
    again = small_model(toys(), "rel", seed=2)
    again.set_parameters(other.get_parameters())
    assert same_weights(weights(model), weights(again))


def test_weights_of_another_kind_of_model_are_refused_and_nothing_is_taken(tmp_path: Path) -> None:
    model, other = small_model(toys(), "rel"), small_model(toys(), "lstm", seed=1)
    for trained in (model, other):
        trained.learn(64)
    other.save(tmp_path / "other")
    before = deepcopy(model.get_parameters())
    takers: list[Any] = [other.get_parameters(), tmp_path / "other", {"policy": {}}]
    for taken in takers:
        with pytest.raises(ModelMismatchError, match="use the options it was made with") as error:
            model.set_parameters(taken)
        assert "\n" not in str(error.value)
        assert same_weights(weights(model), before["policy"])
        states = [of["policy.optimizer"]["state"] for of in (model.get_parameters(), before)]
        for found, kept in zip(*(state.values() for state in states), strict=True):
            assert same_weights(found, kept)


def test_a_file_that_is_open_is_refused(tmp_path: Path) -> None:
    model = small_model(toys(), "rel")
    model.save(tmp_path / "model")
    with (tmp_path / "model.safetensors").open("rb") as file:
        takers: list[Any] = [MemoryPPO.load, model.set_parameters]
        for take in takers:
            with pytest.raises(ModelOptionError, match="pass a path"):
                take(file)


class Parts(gym.Env[Any, Any]):
    """A world that observes a number of parts, in some order."""

    def __init__(self, space: spaces.Dict) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_the_parts_of_an_observation_keep_their_order(tmp_path: Path) -> None:
    parts: dict[str, spaces.Space[Any]] = {
        "z": spaces.Box(-1, 1, (3,)),
        "a": spaces.Box(-1, 1, (2,)),
    }
    ordered, by_name = spaces.Dict(list(parts.items())), spaces.Dict(parts)
    assert list(ordered) == ["z", "a"] and list(by_name) == ["a", "z"]
    model = MemoryPPO("NoMemoryPolicy", DummyVecEnv([lambda: Parts(ordered)]))
    model.save(tmp_path / "model")
    observation = {name: torch.rand(1, *(part.shape or ())) for name, part in parts.items()}

    def logits(of: MemoryPPO) -> Tensor:
        starts = torch.ones(1, dtype=torch.bool)
        state = of.policy.initial_state(1)
        distribution, _ = of.policy.get_distribution(observation, state, starts)
        found: Tensor = distribution.distribution.logits
        return found

    elsewhere = DummyVecEnv([lambda: Parts(by_name)])
    for loaded in (
        MemoryPPO.load(tmp_path / "model"),
        MemoryPPO.load(tmp_path / "model", elsewhere),
    ):
        assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1, dtype=np.int32),
        spaces.MultiDiscrete([2, 3], dtype=np.int32),
        spaces.MultiBinary([2, 2]),
        spaces.Box(0, 5, (2,), np.int16),
    ],
    ids=str,
)
def test_spaces_come_back_as_they_were(space: spaces.Space[Any]) -> None:
    tensors, data = pack(space_state(space))
    assert space_of(unpack(tensors, data)) == space
    assert space_of({"discrete": [3, 1]}) == spaces.Discrete(3, start=1)  # of older files


def test_names_of_stable_baselines3s_callbacks(tmp_path: Path) -> None:
    model = small_model(toys(), "rel")
    model.save(tmp_path / "x_1_steps.zip")
    for name in ("x_1_steps", "x_1_steps.zip", "x_1_steps.safetensors"):
        assert same_weights(weights(model), weights(MemoryPPO.load(tmp_path / name)))


def test_a_loaded_model_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    first = small_model(toys(), "rel", learning_rate=1e-3, clip_range=lambda left: 0.1 * left)
    first.learn(2 * 12 * 4)
    first.save(tmp_path / "model")

    second = MemoryPPO.load(tmp_path / "model", toys(), clip_range=lambda left: 0.1 * left)
    assert same_weights(weights(first), weights(second))
    assert second.num_timesteps == first.num_timesteps
    observations = np.ones((5, 3), np.float32)
    ours, _ = first.predict(observations, deterministic=True)
    theirs, _ = second.predict(observations, deterministic=True)
    assert np.array_equal(ours, theirs)

    for model in (first, second):  # from the same worlds and random numbers
        model.set_env(toys())
        model._last_obs = None
        model.set_random_seed(7)
        model.learn(2 * 12 * 4)
    assert same_weights(weights(first), weights(second))


@pytest.mark.parametrize("kind", [str, Path])
def test_settings_are_kept_and_may_be_changed(tmp_path: Path, kind: Any) -> None:
    logs = str(tmp_path / "logs")
    model = small_model(
        toys(), "rel", tensorboard_log=kind(logs), verbose=1, stats_window_size=7, gamma=0.5
    )
    model.save(tmp_path / "model")
    again = MemoryPPO.load(tmp_path / "model", print_system_info=True, n_epochs=9)
    assert (again.tensorboard_log, again.verbose, again._stats_window_size) == (logs, 1, 7)
    assert (again.gamma, again.n_epochs, again.n_steps) == (0.5, 9, 12)


@pytest.mark.parametrize("way", ["custom_objects", "argument"])
def test_what_cannot_be_stored_is_asked_for(tmp_path: Path, way: str) -> None:
    options = {"memory": Own, "memory_kwargs": {}, "hidden_size": 8, "net_arch": (8,)}
    model = small_model(toys(), policy_kwargs=options)
    model.learn(2 * 12 * 4)
    model.save(tmp_path / "model")
    with pytest.raises(ModelMismatchError, match=r"policy_kwargs could not be stored.*pass"):
        MemoryPPO.load(tmp_path / "model")
    given: dict[str, Any] = (
        {"policy_kwargs": options}
        if way == "argument"
        # lr_schedule is what people write for stable-baselines3; here it is no argument.
        else {"custom_objects": {"policy_kwargs": options, "lr_schedule": lambda _: 0.0}}
    )
    again = MemoryPPO.load(tmp_path / "model", toys(), force_reset=False, **given)
    assert isinstance(again.policy.memory, Own)
    assert same_weights(weights(model), weights(again))
    assert model._last_state is not None and again._last_state is not None
    assert all(map(torch.equal, model._last_state, again._last_state))


def test_a_policy_is_saved_with_its_model(tmp_path: Path) -> None:
    policy = small_model(toys()).policy
    with pytest.raises(PolicyOptionError, match=r"model\.save"):
        policy.save(str(tmp_path / "policy"))
    with pytest.raises(PolicyOptionError, match=r"MemoryPPO\.load"):
        type(policy).load(str(tmp_path / "policy"))
    assert not list(tmp_path.iterdir())


def test_other_spaces_and_foreign_files_are_refused(tmp_path: Path) -> None:
    small_model(toys()).save(tmp_path / "model")
    with pytest.raises(ModelMismatchError, match="observation space does not fit"):
        MemoryPPO.load(tmp_path / "model", toys(2, "discrete"))
    save_file(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}, {"data": 1})
    with pytest.raises(CheckpointDamagedError, match="no saved model; of a run, give"):
        MemoryPPO.load(tmp_path / "other")


def test_a_checkpoint_of_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(env="CartPole-v1", n_envs=1, device="cpu")
    with RunDirectory.create(tmp_path / "run", config, {}) as run:
        run.save_checkpoint(5, *pack({"model": {"head.weight": torch.zeros(2)}}))
    for call in (load_policy, MemoryPPO.load, resume):
        with pytest.raises(ModelMismatchError, match="holds no agent"):
            call(tmp_path / "run")


def test_training_does_not_go_on_from_a_policy_alone(tmp_path: Path) -> None:
    config = TrainConfig(env="CartPole-v1", n_envs=1, device="cpu")
    model, worlds = make_model(config)
    slim = {
        name: value
        for name, value in model_state(model).items()
        if name not in ("optimizer", "counters", "memory")
    }
    with RunDirectory.create(tmp_path / "run", config, {}) as run:
        run.save_checkpoint(5, *pack({"model": slim, "backend": "gymnasium"}))
    made = (tmp_path / "run" / "provenance.json").read_bytes()
    for call in (lambda: MemoryPPO.load(tmp_path / "run", worlds), lambda: resume(run.path)):
        with pytest.raises(ModelMismatchError, match="this is a policy to be played"):
            call()
    torch_state = torch.get_rng_state()
    assert load_policy(tmp_path / "run").steps == 5
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (tmp_path / "run" / "provenance.json").read_bytes() == made


def test_a_policy_that_diverged_is_not_played() -> None:
    model = small_model(toys())
    nn.init.constant_(model.policy.value_net.weight, torch.nan)
    with pytest.raises(ModelMismatchError, match="diverged"):
        make_policy(model_state(model))
