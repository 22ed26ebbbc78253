"""The hastened view is minigrid's own, cell by cell."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.envs.doorkey import DoorKeyEnv

from relagent.envs import PAIRS, make_env
from relagent.envs.view import hasten_view

OTHERS = (
    "MiniGrid-MultiRoom-N4-S5-v0",
    "MiniGrid-LavaCrossingS9N2-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",  # sees through walls, and things move
    "MiniGrid-ObstructedMaze-2Dlh-v0",  # boxes and doors that open
    "MiniGrid-KeyCorridorS3R2-v0",
    "BabyAI-GoToImpUnlock-v0",
    "BabyAI-PutNextS5N2Carrying-v0",  # starts with something in hand
)
WORLDS = sorted({world for pair in PAIRS for world in pair.env_ids}) + list(OTHERS)


@pytest.mark.parametrize("env_id", WORLDS)
def test_random_walks_see_what_minigrid_sees(env_id: str) -> None:
    hastened, plain = make_env(env_id), make_env(env_id)
    hasten_view(hastened)
    generator = np.random.default_rng(0)
    actions = int(plain.action_space.n)  # type: ignore[attr-defined]  # always Discrete here
    seen: set[bytes] = set()
    for seed in range(2):
        here, there = (env.reset(seed=seed)[0] for env in (hastened, plain))
        for _ in range(60):
            np.testing.assert_equal(here, there)
            seen.add(there["image"].tobytes())
            # Rather forward than not, so that the walks get somewhere.
            action = 2 if generator.random() < 0.4 else int(generator.integers(actions))
            (here, *outcome), (there, *expected) = hastened.step(action), plain.step(action)
            assert outcome == expected
            if expected[1] or expected[2]:
                here, there = (env.reset()[0] for env in (hastened, plain))
    assert len(seen) > 5


def test_a_carried_thing_is_seen_at_the_agents_place() -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0")
    world = env.unwrapped
    assert isinstance(world, DoorKeyEnv)
    hasten_view(env)
    env.reset(seed=0)
    key = next(cell for cell in world.grid.grid if cell is not None and cell.type == "key")
    world.carrying = key  # type: ignore[assignment]  # minigrid's annotation knows only None
    image = env.step(6)[0]["image"]
    assert tuple(image[3, 6]) == key.encode()


def test_worlds_with_a_view_of_their_own_and_other_environments_stay_as_they_are() -> None:
    class Near(DoorKeyEnv):
        def gen_obs_grid(self, agent_view_size: int | None = None) -> Any:
            raise NotImplementedError

    world = Near(size=5)
    hasten_view(world)
    assert "gen_obs_grid" not in vars(world)
    hasten_view(gym.make("CartPole-v1"))
