from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from relagent.envs import (
    BackendError,
    EnvCountError,
    EnvPoolVecEnv,
    GridObservation,
    ObservationPartsError,
    PythonVecEnv,
    SeedError,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    backend_of,
    make_env,
    make_vec_env,
    pool_ids,
)
from relagent.envs.make import check_actions

DOORKEY = "MiniGrid-DoorKey-5x5-v0"


def test_backends_are_chosen_and_named() -> None:
    assert isinstance(make_vec_env(DOORKEY, 1, 0), EnvPoolVecEnv)
    assert backend_of(make_vec_env(DOORKEY, 1, 0)).startswith("envpool ")
    assert backend_of(make_vec_env(DOORKEY, 1, 0, backend="minigrid")).startswith("minigrid ")
    assert backend_of(make_vec_env("CartPole-v1", 1, 0)).startswith("gymnasium ")
    with pytest.warns(UserWarning, match="latest versioned"):
        assert isinstance(make_vec_env("MiniGrid-DoorKey-5x5", 1, 0), EnvPoolVecEnv)
    # an id of the Python package alone
    assert backend_of(make_vec_env("MiniGrid-MultiRoom-N4-S5-v1", 1, 0)).startswith("minigrid ")


@pytest.mark.parametrize(
    "env_id",
    [DOORKEY, "MiniGrid-GoToDoor-8x8-v0", "MiniGrid-Dynamic-Obstacles-5x5-v0", "BabyAI-GoTo-v0"],
)
def test_both_backends_have_the_same_spaces(env_id: str) -> None:
    pool = make_vec_env(env_id, 1, 0, backend="envpool")
    python = make_vec_env(env_id, 1, 0, backend="minigrid")
    assert pool.observation_space == python.observation_space == make_env(env_id).observation_space
    assert pool.action_space == python.action_space


def test_without_envpool_minigrid_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)  # importing it now fails
    pool_ids.cache_clear()
    try:
        assert isinstance(make_vec_env(DOORKEY, 1, 0), PythonVecEnv)
        with pytest.raises(BackendError, match="install envpool"):
            make_vec_env(DOORKEY, 1, 0, backend="envpool")
    finally:
        pool_ids.cache_clear()


@pytest.mark.parametrize("parts", [["image"], ["mission", "direction"]])
@pytest.mark.parametrize("backend", ["envpool", "minigrid"])
def test_parts_can_be_chosen(parts: list[str], backend: Any) -> None:
    venv: Any = make_vec_env(DOORKEY, 2, 0, backend=backend, parts=parts)
    assert set(venv.reset()) == set(parts)
    obs, *_ = venv.step(np.zeros(2, dtype=int))
    assert set(obs) == set(parts)


def test_a_mission_of_one_text_is_there_when_asked_for() -> None:
    pool: Any = make_vec_env(DOORKEY, 1, 0, backend="envpool", parts=["mission"]).reset()
    python: Any = make_vec_env(DOORKEY, 1, 0, backend="minigrid", parts=["mission"]).reset()
    assert np.array_equal(pool["mission"], python["mission"])
    assert np.any(pool["mission"])


class _Box(gym.Env[Any, Any]):
    """A world of another package: five steps, and whatever space it was made with."""

    def __init__(self, **kwargs: Any) -> None:
        self.observation_space = kwargs["space"]
        self.action_space = spaces.Box(-1, 1, (2,))

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.fixture
def register() -> Any:
    made: list[str] = []

    def add(space: spaces.Space[Any]) -> str:
        name = f"relagent-test-{len(made)}-v0"
        gym.register(name, entry_point=_Box, max_episode_steps=5, kwargs={"space": space})
        made.append(name)
        return name

    yield add
    for name in made:
        del gym.registry[name]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (3,)),
        spaces.Discrete(4),
        spaces.Dict({"a": spaces.Box(0, 1, (3,)), "b": spaces.Discrete(4)}),
    ],
    ids=["Box", "Discrete", "Dict"],
)
def test_any_other_environment_is_left_as_it_is(register: Any, space: spaces.Space[Any]) -> None:
    env_id = register(space)
    venv = make_vec_env(env_id, 2, 0)
    assert venv.observation_space == space
    first: Any = venv.reset()
    for _ in range(5):
        _, _, done, infos = venv.step(np.zeros((2, 2)))
    assert done.all()
    assert all(i["TimeLimit.truncated"] and i["episode"]["r"] == 5 for i in infos)
    again: Any = make_vec_env(env_id, 2, 0).reset()
    pairs = [(first[k], again[k]) for k in first] if isinstance(first, dict) else [(first, again)]
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_the_judge_is_one_python_environment() -> None:
    env = make_env(DOORKEY, ["image"])
    assert isinstance(env, GridObservation)
    assert env.parts == ("image",)
    assert not isinstance(make_env("CartPole-v1"), GridObservation)


@pytest.mark.parametrize(
    ("env_id", "hint"),
    [
        ("MiniGrid-DoorKey-5x5-v", "did you mean .*MiniGrid-DoorKey-5x5-v0"),
        ("MiniGrid-DorKey-5x5-v0", "did you mean .*MiniGrid-DoorKey-5x5-v0"),
        ("CartPole-v77", "did you mean .*CartPole-v1"),
        ("no such thing", "give an id such as"),
        ("", "give an id such as"),
        (":CartPole-v1", "':CartPole-v1' names a module that cannot be imported"),
        ("..x:y", "'..x:y' names a module that cannot be imported"),
        ("a:b:c", "'a:b:c' names a module that cannot be imported"),
        ("minigrid:MiniGrid-DorKey-5x5-v0", "did you mean .*MiniGrid-DoorKey-5x5-v0"),
        ("nosuchpackage:Some-v0", "'nosuchpackage:Some-v0' names a module that cannot be imported"),
    ],
)
def test_unknown_ids_get_the_nearest_names(env_id: str, hint: str) -> None:
    with pytest.raises(UnknownEnvironmentError, match=hint) as caught:
        make_vec_env(env_id, 1, 0)
    assert "\n" not in str(caught.value)


def test_a_world_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks_a_package(*_: Any, **__: Any) -> None:
        raise gym.error.DependencyNotInstalled("box2d is not installed")

    monkeypatch.setattr(gym, "make", lacks_a_package)
    for env_id in ("CartPole-v1", "CartPole", "gymnasium:CartPole-v1"):
        with pytest.raises(UnknownEnvironmentError, match=f"^{env_id} cannot be made: box2d is"):
            make_vec_env(env_id, 1, 0)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(3),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.MultiDiscrete(np.full((2, 2), 3)),
        spaces.MultiBinary((2, 2)),
    ],
)
def test_actions_that_no_agent_can_take_are_named(actions: spaces.Space[Any]) -> None:
    with pytest.raises(UnsupportedSpaceError, match=r"(?s)takes actions .* a Box with bounds"):
        check_actions("World-v0", actions)


def test_bad_requests_are_named(register: Any) -> None:
    with pytest.raises(EnvCountError, match="choose 1 or more"):
        make_vec_env(DOORKEY, 0, 0)
    with pytest.raises(EnvCountError, match="0 threads"):
        make_vec_env(DOORKEY, 1, 0, n_threads=0)
    with pytest.raises(SeedError, match="choose 0 or more"):
        make_vec_env(DOORKEY, 1, -1)
    with pytest.raises(BackendError, match="choose auto, envpool or minigrid"):
        unknown: Any = "ray"
        make_vec_env(DOORKEY, 1, 0, backend=unknown)
    with pytest.raises(BackendError, match="no MiniGrid or BabyAI world"):
        make_vec_env("CartPole-v1", 1, 0, backend="envpool")
    with pytest.raises(ObservationPartsError, match="has no parts"):
        make_vec_env("CartPole-v1", 1, 0, parts=["image"])
    with pytest.raises(UnsupportedSpaceError, match=r"observes Discrete.*only numbers from 0"):
        make_vec_env(register(spaces.Discrete(3, start=1)), 1, 0)
    for space in (spaces.Box(0, 1, ()), spaces.Dict({"a.b": spaces.Discrete(2)})):
        with pytest.raises(UnsupportedSpaceError, match="names without a full stop"):
            make_vec_env(register(space), 1, 0)
    with pytest.raises(UnsupportedSpaceError, match="only Box, Discrete and a Dict"):
        make_vec_env(register(spaces.Tuple([spaces.Discrete(2)])), 1, 0)


def test_importing_needs_no_envpool_and_minds_no_other_envs_folder(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("raise RuntimeError('the wrong folder')")
    code = "import sys, relagent.envs; print('envpool' in sys.modules, 'envs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
