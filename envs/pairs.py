"""The train -> test pairs of the paper and every size that each of their families has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Pair:
    """One family of worlds: where an agent is trained, where it is tested, and all its sizes.

    Attributes:
        name: the family's name in Table 4 of Kerg et al. (2020), as a short word.
        train_id: the small world that the agent is trained on.
        test_id: the larger world that it is tested on, unchanged.
        ladder: all ids that minigrid registers for the family, smallest first.
        paper: memory (``"mem"``, ``"rel"``) -> average reward on (train, test) in Table 4.
    """

    name: str
    train_id: str
    test_id: str
    ladder: tuple[str, ...]
    paper: Mapping[str, tuple[float, float]]

    @cached_property
    def env_ids(self) -> frozenset[str]:
        """Every id of the family."""
        return frozenset((self.train_id, self.test_id, *self.ladder))


def _pair(
    name: str,
    pattern: str,
    sizes: tuple[str, ...],
    train: str,
    test: str,
    *,
    mem: tuple[float, float],
    rel: tuple[float, float],
) -> Pair:
    return Pair(
        name=name,
        train_id=pattern.format(train),
        test_id=pattern.format(test),
        ladder=tuple(pattern.format(size) for size in sizes),
        paper=MappingProxyType({"mem": mem, "rel": rel}),
    )


# Table 4 of Kerg et al. (2020), appendix B. S13Random and S17Random draw the corridor's length up
# to the size that their name gives, so they stand behind the fixed world of that size.
PAIRS: tuple[Pair, ...] = (
    _pair(
        "redbluedoors",
        "MiniGrid-RedBlueDoors-{}-v0",
        ("6x6", "8x8"),
        train="6x6",
        test="8x8",
        mem=(0.97, 0.95),
        rel=(0.97, 0.95),
    ),
    _pair(
        "gotoobject",
        "MiniGrid-GoToObject-{}-N2-v0",
        ("6x6", "8x8"),
        train="6x6",
        test="8x8",
        mem=(0.85, 0.66),
        rel=(0.84, 0.74),
    ),
    _pair(
        "memory",
        "MiniGrid-Memory{}-v0",
        ("S7", "S9", "S11", "S13", "S13Random", "S17Random"),
        train="S7",
        test="S13",
        mem=(0.40, 0.24),
        rel=(0.94, 0.30),
    ),
    _pair(
        "gotodoor",
        "MiniGrid-GoToDoor-{}-v0",
        ("5x5", "6x6", "8x8"),
        train="5x5",
        test="8x8",
        mem=(0.17, 0.11),
        rel=(0.25, 0.15),
    ),
    _pair(
        "fetch",
        "MiniGrid-Fetch-{}-v0",
        ("5x5-N2", "6x6-N2", "8x8-N3"),
        train="5x5-N2",
        test="8x8-N3",
        mem=(0.42, 0.44),
        rel=(0.50, 0.45),
    ),
    _pair(
        "doorkey",
        "MiniGrid-DoorKey-{}-v0",
        ("5x5", "6x6", "8x8", "16x16"),
        train="5x5",
        test="16x16",
        mem=(0.94, 0.31),
        rel=(0.93, 0.44),
    ),
)


def canonical_id(env_id: str) -> str:
    """The registered id that gymnasium takes an id for: without its module, with its version."""
    import minigrid  # noqa: F401  # registers its ids with gymnasium

    name = env_id.rpartition(":")[2]
    try:
        namespace, base, version = parse_env_id(name)
    except gym.error.Error:  # no id at all
        return env_id
    if version is None:
        version = find_highest_version(namespace, base)
    return get_env_id(namespace, base, version)


def pair_of(env_id: str) -> Pair | None:
    """The family that an environment belongs to, or None where the paper has none for it."""
    env_id = canonical_id(env_id)
    return next((pair for pair in PAIRS if env_id in pair.env_ids), None)


def ladder_of(env_id: str) -> tuple[str, ...]:
    """All sizes of an environment's family, smallest first; the id alone where it has none."""
    pair = pair_of(env_id)
    return pair.ladder if pair is not None else (env_id,)
