from __future__ import annotations

import re

import gymnasium as gym
import minigrid  # noqa: F401  # registers its ids
import pytest

from relagent.envs import PAIRS, Pair, canonical_id, ladder_of, pair_of

# A family's registered ids: name, then a size, then perhaps a number of objects.
PATTERNS = {
    "redbluedoors": r"MiniGrid-RedBlueDoors-.*",
    "gotoobject": r"MiniGrid-GoToObject-.*",
    "memory": r"MiniGrid-MemoryS.*",
    "gotodoor": r"MiniGrid-GoToDoor-.*",
    "fetch": r"MiniGrid-Fetch-.*",
    "doorkey": r"MiniGrid-DoorKey-.*",
}


def _size(env_id: str) -> int:
    match = re.search(r"(\d+)", env_id)
    assert match is not None
    return int(match.group(1))


def test_there_are_the_six_families_of_the_table() -> None:
    assert {pair.name for pair in PAIRS} == set(PATTERNS)
    assert all(set(pair.paper) == {"mem", "rel"} for pair in PAIRS)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_ladder_holds_every_registered_size_in_order(pair: Pair) -> None:
    registered = {i for i in gym.registry if re.fullmatch(PATTERNS[pair.name], i)}
    assert set(pair.ladder) == registered
    sizes = [_size(i) for i in pair.ladder]
    assert sizes == sorted(sizes)
    assert pair.train_id == pair.ladder[0]
    assert pair.test_id in pair.ladder[1:]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_numbers_are_rewards(pair: Pair) -> None:
    for train, test in pair.paper.values():
        assert 0 < test <= 1
        assert 0 < train <= 1


def test_the_table_reads_as_printed() -> None:
    doorkey = pair_of("MiniGrid-DoorKey-16x16-v0")
    assert doorkey is not None
    assert doorkey.paper == {"mem": (0.94, 0.31), "rel": (0.93, 0.44)}
    assert ladder_of("MiniGrid-MemoryS7-v0")[-1] == "MiniGrid-MemoryS17Random-v0"


@pytest.mark.parametrize(
    ("env_id", "canonical"),
    [
        ("MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0"),
        ("minigrid:MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-5x5-v0"),
        ("minigrid:MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0"),
        ("CartPole-v0", "CartPole-v0"),
        ("NoSuchThing", "NoSuchThing"),
        ("no id: at all!", "no id: at all!"),
    ],
)
def test_an_id_is_known_however_it_is_written(env_id: str, canonical: str) -> None:
    assert canonical_id(env_id) == canonical
    pair, known = pair_of(env_id), pair_of(canonical)
    assert pair is known
    assert ladder_of(env_id) == (known.ladder if known is not None else (env_id,))


def test_other_environments_have_no_family() -> None:
    assert pair_of("CartPole-v1") is None
    assert ladder_of("CartPole-v1") == ("CartPole-v1",)
