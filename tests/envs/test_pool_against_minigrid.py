"""EnvPool's worlds copied, cell by cell, into the Python package, and played in lockstep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj

from relagent.envs import EnvPoolVecEnv, GridObservation, make_vec_env
from relagent.envs.observations import NO_ACTION

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]


def _world(env: gym.Env[Any, Any]) -> Any:
    return env.unwrapped


def _copy(state: Any, env: GridObservation) -> None:
    """Put EnvPool's state at an episode's start into a world of the Python package."""
    world = _world(env)
    world.grid = Grid(state.width, state.height)
    for x in range(state.width):
        for y in range(state.height):
            at = 3 * (x * state.height + y)
            cell = WorldObj.decode(*state.grid[at : at + 3])
            if cell is not None:
                cell.init_pos = cell.cur_pos = (x, y)
            world.grid.set(x, y, cell)
            if cell is not None and cell.type == "door":
                setattr(world, f"{cell.color}_door", cell)  # RedBlueDoors holds them by name
    world.width, world.height = state.width, state.height
    world.agent_pos, world.agent_dir = tuple(state.agent_pos), state.agent_dir
    world.carrying, world.step_count, world.mission = None, 0, state.mission
    world.success_pos, world.failure_pos = state.success_pos, state.failure_pos
    world.target_pos = state.target_pos
    world.target_color = world.targetColor = IDX_TO_COLOR[state.target_color]
    world.target_type = world.targetType = IDX_TO_OBJECT[state.target_type]
    world.move_type, world.moveColor = (
        IDX_TO_OBJECT[state.move_type],
        IDX_TO_COLOR[state.move_color],
    )
    assert world.max_steps == state.max_steps - 1  # the adapter's pool has one step to spare


class Lockstep:
    """A pool and its copies, which must agree in everything at every step."""

    def __init__(self, env_id: str, n: int, seed: int = 0) -> None:
        pool = make_vec_env(env_id, n, seed, backend="envpool")
        assert isinstance(pool, EnvPoolVecEnv)
        self.pool, parts = pool, pool.parts
        self.copies = [
            GridObservation(gym.make(env_id, disable_env_checker=True), parts) for _ in range(n)
        ]
        for copy in self.copies:
            copy.reset(seed=0)
        self.seen: Any = self.pool.reset()
        self.endings: list[tuple[bool, bool, float]] = []
        self._recopy(range(n))

    def _recopy(self, ids: Any) -> None:
        states = self.pool._pool.debug_states(np.asarray(ids, dtype=np.int32))
        for i, state in zip(ids, states, strict=True):
            _copy(state, self.copies[i])
            raw = _world(self.copies[i]).gen_obs()
            self._agree(i, self.copies[i]._observation(raw, NO_ACTION), self.seen)

    def _agree(self, i: int, expected: dict[str, Any], seen: Any) -> None:
        assert set(expected) == set(seen)
        for part, value in expected.items():
            assert np.array_equal(value, seen[part][i]), (i, part)

    def step(self, actions: Array) -> None:
        self.seen, rewards, dones, infos = self.pool.step(actions)
        finished = []
        for i, copy in enumerate(self.copies):
            last, reward, terminated, truncated, info = copy.step(int(actions[i]))
            assert rewards[i] == np.float32(reward)
            assert dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] == truncated
            if not dones[i]:
                self._agree(i, last, self.seen)
                continue
            finished.append(i)
            self.endings.append((terminated, truncated, float(reward)))
            kept = infos[i]["terminal_observation"]
            self._agree(0, last, {part: [value] for part, value in kept.items()})
            assert infos[i]["is_success"] == info["is_success"]
            assert infos[i]["episode"]["l"] == _world(copy).step_count
        if finished:
            self._recopy(finished)


WORLDS = [
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-DoorKey-16x16-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-MemoryS13Random-v0",
    "MiniGrid-RedBlueDoors-6x6-v0",
    "MiniGrid-GoToObject-6x6-N2-v0",
    "MiniGrid-GoToDoor-5x5-v0",
    "MiniGrid-Fetch-5x5-N2-v0",
    "MiniGrid-Fetch-8x8-N3-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "MiniGrid-LavaCrossingS9N1-v0",
]


@pytest.mark.parametrize("env_id", WORLDS)
def test_random_play_agrees_with_minigrid(env_id: str) -> None:
    game = Lockstep(env_id, 8)
    rng = np.random.default_rng(0)
    for _ in range(300):
        # Mostly forwards: it gets about, and every other action still has its turn.
        game.step(rng.choice(7, size=8, p=[0.12, 0.12, 0.46, 0.12, 0.06, 0.08, 0.04]))
    if "16x16" not in env_id:
        assert game.endings


def _limit(env_id: str) -> int:
    return int(_world(gym.make(env_id, disable_env_checker=True)).max_steps)


@pytest.mark.parametrize(
    ("env_id", "walk", "last", "outcomes"),
    [
        # done ends every episode, with a reward where the target is beside the agent
        ("MiniGrid-GoToDoor-5x5-v0", [0, 1, 2], 6, {(True, True), (True, False)}),
        ("MiniGrid-GoToObject-6x6-N2-v0", [0, 1, 2], 6, {(True, True), (True, False)}),
        # pickup: the right object, the wrong one, none
        ("MiniGrid-Fetch-5x5-N2-v0", [0, 1, 2], 3, {(True, True), (True, False), (False, False)}),
    ],
)
def test_the_world_ends_the_episode_on_the_last_allowed_step(
    env_id: str, walk: list[int], last: int, outcomes: set[tuple[bool, bool]]
) -> None:
    n = 24
    game = Lockstep(env_id, n)
    rng = np.random.default_rng(1)
    for _ in range(_limit(env_id) - 1):
        game.step(rng.choice(walk, size=n))
    assert not game.endings
    game.step(np.full(n, last))
    assert len(game.endings) == n
    assert {(terminated, reward > 0) for terminated, _, reward in game.endings} == outcomes
    assert all(terminated != truncated for terminated, truncated, _ in game.endings)


def _at_blue_door(world: Any) -> bool:
    return world.grid.get(*world.front_pos) is world.blue_door


def _before_an_answer(world: Any) -> bool:
    return tuple(world.front_pos) in (world.success_pos, world.failure_pos)


@pytest.mark.parametrize(
    ("env_id", "stop", "last", "outcomes"),
    [
        # the blue door opened before the red one
        ("MiniGrid-RedBlueDoors-6x6-v0", _at_blue_door, 5, {(True, False), (False, False)}),
        # a step to the right object, to the wrong one, elsewhere
        (
            "MiniGrid-MemoryS7-v0",
            _before_an_answer,
            2,
            {(True, True), (True, False), (False, False)},
        ),
    ],
)
def test_the_last_allowed_step_decides(
    env_id: str, stop: Callable[[Any], bool], last: int, outcomes: set[tuple[bool, bool]]
) -> None:
    n = 16
    game = Lockstep(env_id, n)
    rng = np.random.default_rng(2)
    for step in range(1, _limit(env_id)):
        # Most walk until one step is missing; the others never get there.
        waits = [stop(_world(copy)) or (i < 4 and step > 1) for i, copy in enumerate(game.copies)]
        game.step(np.where(waits, 4, rng.integers(0, 3, n)))
    assert not game.endings
    game.step(np.full(n, last))
    assert {(terminated, reward > 0) for terminated, _, reward in game.endings} == outcomes


@pytest.mark.parametrize(
    ("at_goal", "terminated", "reward"), [(0, True, 0.1), (1, False, 0.0)], ids=["last", "late"]
)
def test_the_goal_reached_on_the_last_step_and_one_step_too_late(
    at_goal: int, terminated: bool, reward: float
) -> None:
    env_id = "MiniGrid-Empty-5x5-v0"
    route = [2, 2, 1, 2, 2]  # from the one corner to the goal in the other
    game = Lockstep(env_id, 2)
    waits = _limit(env_id) - len(route) + at_goal
    for action in ([4] * waits + route)[: _limit(env_id)]:  # 4 drops nothing
        assert not game.endings
        game.step(np.full(2, action))
    assert [ending[:2] for ending in game.endings] == [(terminated, not terminated)] * 2
    assert [ending[2] for ending in game.endings] == pytest.approx([reward] * 2)


def test_a_babyai_mission_fulfilled_on_the_last_step_is_terminated() -> None:
    n = 256
    venv = make_vec_env("BabyAI-GoToRedBallNoDists-v0", n, 0, backend="envpool")
    assert isinstance(venv, EnvPoolVecEnv)
    venv.reset()
    states = venv._pool.debug_states(np.arange(n, dtype=np.int32))
    limit = states[0].max_steps
    near = np.array([_ball_is_two_cells_ahead(state) for state in states])
    assert near.sum() >= 3
    for _ in range(limit - 1):
        _, _, dones, _ = venv.step(np.full(n, 4))  # 4 drops nothing
        assert not dones.any()
    _, rewards, dones, infos = venv.step(np.where(near, 2, 4))
    assert dones.all()
    for one, reward, info in zip(near, rewards, infos, strict=True):
        assert (reward > 0) == one == info["is_success"]
        assert info["TimeLimit.truncated"] == (not one)


def _ball_is_two_cells_ahead(state: Any) -> bool:
    dx, dy = [(1, 0), (0, 1), (-1, 0), (0, -1)][state.agent_dir]
    x, y = state.agent_pos[0] + 2 * dx, state.agent_pos[1] + 2 * dy
    inside = 0 <= x < state.width and 0 <= y < state.height
    return inside and IDX_TO_OBJECT[state.grid[3 * (x * state.height + y)]] == "ball"


def _objects_on_the_agents_old_cell(env_id: str, n: int, episodes: int) -> tuple[int, int]:
    """How often an episode has an object where the agent stood before it, and the grid's width."""
    pool = make_vec_env(env_id, n, 0, backend="envpool")
    assert isinstance(pool, EnvPoolVecEnv)
    pool.reset()
    ids = np.arange(n, dtype=np.int32)
    hits, states = 0, pool._pool.debug_states(ids)
    for _ in range(episodes):
        before = states
        pool.reset()
        states = pool._pool.debug_states(ids)
        for old, new in zip(before, states, strict=True):
            x, y = old.agent_pos
            hits += IDX_TO_OBJECT[new.grid[3 * (x * new.height + y)]] in ("key", "ball", "box")
    return hits, states[0].width


@pytest.mark.parametrize("env_id", ["MiniGrid-Fetch-5x5-N2-v0", "MiniGrid-GoToObject-6x6-N2-v0"])
def test_objects_appear_where_the_agent_stood_as_often_as_anywhere(env_id: str) -> None:
    n, episodes = 64, 40
    hits, width = _objects_on_the_agents_old_cell(env_id, n, episodes)
    expected = 2 / (width - 2) ** 2  # two objects on the inner cells, wherever the agent was
    deviation = np.sqrt(expected * (1 - expected) / (n * episodes))
    assert abs(hits / (n * episodes) - expected) < 4 * deviation


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-PutNear-6x6-N2-v0",
        "MiniGrid-DoorKey-6x6-v0",
        "MiniGrid-ObstructedMaze-1Dlhb-v0",
        "BabyAI-GoToLocal-v0",
        "BabyAI-PickupLoc-v0",
        "BabyAI-PutNextLocal-v0",
    ],
)
def test_no_cell_is_left_out_in_other_families(env_id: str) -> None:
    hits, _ = _objects_on_the_agents_old_cell(env_id, 64, 20)
    assert hits > 10
