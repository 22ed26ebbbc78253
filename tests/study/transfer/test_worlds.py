"""What the page of the transfer study says of its worlds holds in the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest
from minigrid.core.actions import Actions

from relagent.envs import PAIRS
from relagent.study.transfer.page import DEVIATIONS
from relagent.study.transfer.untold import solved_untold

EPISODES = 1500
TOLERANCE = 0.05  # four standard errors


def resets(world: str, count: int = EPISODES) -> Iterator[Any]:
    """The world after each of so many resets."""
    env = gym.make(world)
    for seed in range(count):
        env.reset(seed=seed)
        yield env.unwrapped


def objects(world: Any) -> list[tuple[tuple[int, int], tuple[str, str]]]:
    """Where each object lies, and of which kind it is."""
    places = [(x, y) for x in range(world.width) for y in range(world.height)]
    there = [(place, world.grid.get(*place)) for place in places]
    return [(place, (it.type, it.color)) for place, it in there if it and it.type != "wall"]


@pytest.mark.parametrize("world", ["MiniGrid-Fetch-5x5-N2-v0", "MiniGrid-Fetch-8x8-N3-v0"])
def test_the_most_frequent_kind_is_the_target_as_often_as_computed(world: str) -> None:
    hits = 0
    for inner in resets(world):
        guess = Counter(kind for _, kind in objects(inner)).most_common(1)[0][0]
        hits += guess == (inner.targetType, inner.targetColor)
    assert hits / EPISODES == pytest.approx(solved_untold(world), abs=TOLERANCE)


@pytest.mark.parametrize(
    "world", ["MiniGrid-GoToObject-6x6-N2-v0", "MiniGrid-GoToObject-8x8-N2-v0"]
)
def test_standing_next_to_both_objects_solves_as_often_as_computed(world: str) -> None:
    solved = 0
    for inner in resets(world):
        one, other = (place for place, _ in objects(inner))
        # Stand where it serves for both, else next to the first.
        free = [(x, y) for x in range(inner.width) for y in range(inner.height)
                if inner.grid.get(x, y) is None]  # fmt: skip
        best = max(
            free, key=lambda place: (beside(place, one) + beside(place, other), beside(place, one))
        )
        inner.agent_pos = best
        _, reward, terminated, *_ = inner.step(Actions.done)
        assert terminated
        solved += float(reward) > 0
    assert solved / EPISODES == pytest.approx(solved_untold(world), abs=TOLERANCE)


def beside(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] - other[0]) + abs(one[1] - other[1]) == 1


@pytest.mark.parametrize("world", ["MiniGrid-GoToDoor-5x5-v0", "MiniGrid-GoToDoor-8x8-v0"])
def test_no_cell_lies_in_front_of_two_doors(world: str) -> None:
    for inner in resets(world, 150):
        doors = [place for place, _ in objects(inner)]
        assert len(doors) == 4
        near = [(x + dx, y + dy) for x, y in doors for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        assert len(set(near)) == len(near)
    assert solved_untold(world) == 1 / 4


def test_diagonal_neighbours_reach_more_pairs() -> None:
    # In a room of 4 x 4 two cells have a neighbour in common, diagonals counted, unless they are
    # three rows or columns apart.
    assert solved_untold("MiniGrid-GoToObject-6x6-N2-v0", diagonal=True) == pytest.approx(0.875)


def test_only_worlds_that_draw_their_goal_have_a_bound() -> None:
    bound = {pair.name for pair in PAIRS if solved_untold(pair.test_id) is not None}
    assert bound == {"gotoobject", "gotodoor", "fetch"}


@pytest.mark.parametrize("name", ["DoorKey-5x5", "MemoryS7", "MemoryS13"])
def test_a_world_has_as_few_layouts_as_the_page_says(name: str) -> None:
    # 600 seeds miss one of the most, 48, with a chance of 48 · (47/48)^600 = 0.0002.
    layouts = {
        (inner.grid.encode().tobytes(), *inner.agent_pos, inner.agent_dir)
        for inner in resets(f"MiniGrid-{name}-v0", 600)
    }
    assert f"{len(layouts)} in {name}" in DEVIATIONS
