"""The agent's view of a MiniGrid or BabyAI world, cut out of the grid in one go."""

from __future__ import annotations

from functools import lru_cache
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.world_object import Wall
from minigrid.minigrid_env import MiniGridEnv

if TYPE_CHECKING:
    import gymnasium as gym

_OUTSIDE = Wall()  # views are looked at, never changed, so that one wall can stand everywhere


def hasten_view(env: gym.Env[Any, Any]) -> None:
    """Make a Python world's observations cheaper, and leave them what they are.

    minigrid 3.2.0 spends most of a step on copying the view out of the grid and turning it a
    quarter at a time, cell by cell, up to four times. Here each cell of the view is looked up at
    its place in the grid. Worlds that see in a way of their own, and those of other packages, stay
    as they are.

    Args:
        env: any environment; it is changed in place.
    """
    world = env.unwrapped
    if isinstance(world, MiniGridEnv) and type(world).gen_obs_grid is MiniGridEnv.gen_obs_grid:
        world.gen_obs_grid = MethodType(_view, world)  # type: ignore[method-assign]  # of this one


def _view(world: Any, agent_view_size: int | None = None) -> tuple[Grid, np.ndarray]:
    """``MiniGridEnv.gen_obs_grid``: the cells that the agent faces, and which of them it sees."""
    size = agent_view_size or world.agent_view_size
    cells, width, height = world.grid.grid, world.grid.width, world.grid.height
    x, y = map(int, world.agent_pos)  # numpy's numbers would make every cell slower
    view = Grid(size, size)
    view.grid = [
        cells[(y + dy) * width + x + dx]
        if 0 <= x + dx < width and 0 <= y + dy < height
        else _OUTSIDE
        for dx, dy in _offsets(size, world.agent_dir)
    ]
    here = size // 2, size - 1
    if world.see_through_walls:
        visible = np.ones((size, size), dtype=bool)
    else:
        visible = view.process_vis(agent_pos=here)
    view.set(*here, world.carrying or None)  # the agent sees what it carries at its own place
    return view, visible


@lru_cache(maxsize=64)
def _offsets(size: int, direction: int) -> tuple[tuple[int, int], ...]:
    """Where the view's cells lie from the agent, row by row: the farthest row comes first."""
    ahead = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
    right = (-ahead[1], ahead[0])
    return tuple(
        (
            ahead[0] * forward + right[0] * sideways,
            ahead[1] * forward + right[1] * sideways,
        )
        for forward in range(size - 1, -1, -1)
        for sideways in range(-(size // 2), size - size // 2)
    )
