"""What the tests of the agent share: a small world of any spaces, and a small model of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from relagent.envs import PythonVecEnv, make_vec_env
from relagent.memories import MEMORIES
from relagent.rl import MemoryPPO
from relagent.rl.rollout import Rollout

GRID = "MiniGrid-GoToDoor-5x5-v0"
"""A grid world with a mission whose episodes a random agent ends every few steps."""

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (3,)),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"place": spaces.Box(-1, 1, (2,)), "kind": spaces.Discrete(3)}),
}

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-0.5, 0.5, (2,)),
    "box 2-d": spaces.Box(-0.5, 0.5, (2, 3)),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(4),
}

# Small enough that buffers run full and evict within a rollout.
MEMORY_OPTIONS: dict[str, dict[str, Any]] = {
    "rel": {"nu": 3, "rho": 2},
    "rel-rnn": {"nu": 3, "rho": 2},
}


class Toy(gym.Env[Any, Any]):
    """Random observations and rewards; an episode of 1 to 9 steps ends in any of three ways.

    It refuses actions that its action space does not contain, and remembers every step it took.
    """

    def __init__(self, observation: str = "box", action: str = "discrete") -> None:
        self.observation_space = OBSERVATIONS[observation]
        self.action_space = ACTIONS[action]
        self.rewards: list[float] = []
        self.left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = int(self.np_random.integers(1, 10))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.left > 0, "a step after the episode's end"
        assert self.action_space.contains(action), action
        self.left -= 1
        reward = float(self.np_random.normal()) + float(np.mean(action))
        self.rewards.append(reward)
        ending = int(self.np_random.integers(3)) if self.left == 0 else None
        return self._observe(), reward, ending in (0, 2), ending in (1, 2), {}

    def _observe(self) -> Any:
        def draw(space: spaces.Space[Any]) -> Any:
            if isinstance(space, spaces.Discrete):
                return int(self.np_random.integers(space.n))
            assert space.shape is not None
            return self.np_random.uniform(-1, 1, space.shape).astype(np.float32)

        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: draw(part) for key, part in space.spaces.items()}
        return draw(space)


def toys(n: int = 4, observation: str = "box", action: str = "discrete") -> PythonVecEnv:
    return PythonVecEnv([lambda: Toy(observation, action) for _ in range(n)])


def world(name: str, n: int = 4) -> VecEnv:
    """``"grid"``, or one of ``OBSERVATIONS``."""
    return make_vec_env(GRID, n, seed=0) if name == "grid" else toys(n, name)


def every_memory_in(name: str, *others: str) -> pytest.MarkDecorator:
    """Every memory in one kind of world, and ``rel`` in the others too.

    A memory sees encoded observations alone, so the pairs left out would show nothing new.
    """
    cases = [(memory, name) for memory in MEMORIES] + [("rel", other) for other in others]
    return pytest.mark.parametrize(("memory", "name"), cases)


def small_model(
    env: VecEnv, memory: str = "rel", double: bool = False, seed: int = 0, **arguments: Any
) -> MemoryPPO:
    """A model of hidden size 8 that learns from 12 steps at a time."""
    policy_kwargs = {
        "memory": memory,
        "memory_kwargs": MEMORY_OPTIONS.get(memory, {}),
        "hidden_size": 8,
        "net_arch": (8,),
        **arguments.pop("policy_kwargs", {}),
    }
    defaults: dict[str, Any] = {"n_steps": 12, "batch_size": 24, "n_epochs": 2}
    model = MemoryPPO(
        "MemoryPolicy",
        env,
        policy_kwargs=policy_kwargs,
        seed=seed,
        device="cpu",
        **defaults | arguments,
    )
    if double:
        model.policy.double()
    return model


class Watch(BaseCallback):
    """Call a function with the model after each rollout, and another after each step."""

    def __init__(
        self,
        rollout_end: Callable[[MemoryPPO], object] | None = None,
        step: Callable[[dict[str, Any]], bool | None] | None = None,
    ) -> None:
        super().__init__()
        self.rollout_end = rollout_end
        self.step = step

    def _on_rollout_end(self) -> None:
        if self.rollout_end is not None:
            assert isinstance(self.model, MemoryPPO)
            self.rollout_end(self.model)

    def _on_step(self) -> bool:
        """Training stops where the function returns False."""
        return self.step is None or self.step(self.locals) is not False


def weights(model: MemoryPPO) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


def last_rollout(model: MemoryPPO) -> Rollout:
    assert model.rollout is not None
    return model.rollout
