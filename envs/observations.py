"""What an agent sees of a MiniGrid or BabyAI world: cell codes, direction, last action, mission."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from relagent.errors import RelagentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Observation = dict[str, Any]

PARTS: tuple[str, ...] = ("image", "direction", "previous_action", "mission")
"""The parts of an observation, in the order of its space."""

VIEW = (7, 7, 3)
"""Shape of every registered world's view: columns, rows, (object, colour, state)."""

IMAGE_HIGH = (10, 5, 3)
"""Largest object, colour and state code. A state goes to 3 where an agent's direction is drawn."""

NO_ACTION = 7
"""The ``previous_action`` of an episode's first observation (the actions are 0 to 6)."""

PADDING, UNKNOWN_WORD = 0, 1

# Append only: a word's id is its place here, and trained weights depend on it.
# These are all the words of minigrid 3.2.0's missions, the BabyAI grammar included.
WORDS: tuple[str, ...] = (
    *("a", "after", "and", "at", "avoid", "ball", "behind", "blue", "box", "door", "end", "fetch"),
    *("find", "from", "front", "get", "go", "goal", "green", "grey", "hallway", "in", "key"),
    *("lava", "left", "matching", "maze", "must", "near", "next", "object", "of", "on", "open"),
    *("opening", "pick", "purple", "put", "reach", "red", "right", "room", "rooms", "square"),
    *("the", "then", "to", "traverse", "unlock", "up", "use", "yellow", "you", "your"),
)
_WORD_IDS = {word: i for i, word in enumerate(WORDS, start=2)}

VOCABULARY_SIZE = 128
"""Word ids are below this number; it leaves room to append words without changing any shape."""

MISSION_LENGTH = 72
"""Longest mission in words: two pairs of BabyAI's "put ... next to ..." joined by "after you"."""


class ObservationPartsError(RelagentError):
    """The requested parts of the observation are not a choice of those that exist."""


class UnsupportedSpaceError(RelagentError):
    """An environment whose observations or actions are of a kind that agents here cannot take."""


@lru_cache(maxsize=65536)
def _tokens(mission: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    words = re.findall(r"[a-z0-9]+", mission.lower())
    unknown = [word for word in words if word not in _WORD_IDS]
    if unknown:
        warnings.warn(
            f"the mission {mission!r} has words that no MiniGrid world has ({', '.join(unknown)}): "
            "an agent cannot tell them from one another",
            stacklevel=2,
        )
    ids = [_WORD_IDS.get(word, UNKNOWN_WORD) for word in words]
    tokens = np.zeros(MISSION_LENGTH, dtype=np.uint8)
    tokens[: len(ids)] = ids[:MISSION_LENGTH]
    tokens.flags.writeable = False  # shared by all who ask for this mission
    return tokens


def tokenize(mission: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Word ids of a mission text.

    Case and punctuation are dropped. 0 is padding, 1 a word that no registered mission has;
    words after the first ``MISSION_LENGTH`` are cut off.

    Returns:
        uint8 array of shape (MISSION_LENGTH,), shared between calls and therefore read-only.
    """
    return _tokens(mission)


def detokenize(tokens: Iterable[int]) -> str:
    """The words of a mission's ids, separated by blanks; unknown words read ``<unknown>``."""
    known = {UNKNOWN_WORD: "<unknown>"} | {i: word for word, i in _WORD_IDS.items()}
    return " ".join(known[int(token)] for token in tokens if token != PADDING)


def check_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """The requested parts in the order of ``PARTS``.

    Raises:
        ObservationPartsError: if there is none, an unknown one, or one twice.
    """
    chosen = (parts,) if isinstance(parts, str) else tuple(parts)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(PARTS):
        raise ObservationPartsError(
            f"observation parts {list(chosen)} cannot be used: choose one or more of "
            f"{', '.join(PARTS)}, each once."
        )
    return tuple(part for part in PARTS if part in chosen)


def observation_space(parts: Sequence[str] = PARTS) -> spaces.Dict:
    """The space of the observations with these parts.

    image: uint8 (7, 7, 3), each cell's (object, colour, state) code, indexed by column, then row,
    in the agent's frame, as minigrid gives it; direction: 0-3; previous_action: 0-6, or 7 in an
    episode's first observation; mission: uint8 (MISSION_LENGTH,), see ``tokenize``.

    Raises:
        ObservationPartsError: see ``check_parts``.
    """
    high = np.broadcast_to(np.array(IMAGE_HIGH, dtype=np.uint8), VIEW).copy()
    every: dict[str, spaces.Space[Any]] = {
        # The true maxima, not 255, which stable-baselines3 would take for a picture to be scaled.
        "image": spaces.Box(np.zeros(VIEW, dtype=np.uint8), high, dtype=np.uint8),
        "direction": spaces.Discrete(4),
        "previous_action": spaces.Discrete(NO_ACTION + 1),
        "mission": spaces.Box(0, VOCABULARY_SIZE - 1, (MISSION_LENGTH,), dtype=np.uint8),
    }
    return spaces.Dict({part: every[part] for part in check_parts(parts)})


def mission_varies(env: gym.Env[Any, Any]) -> bool:
    """Whether a MiniGrid or BabyAI world's mission differs between episodes."""
    from minigrid.envs.babyai.core.roomgrid_level import BabyAIMissionSpace

    space = env.observation_space
    mission = space["mission"] if isinstance(space, spaces.Dict) else None
    # BabyAI writes missions by a grammar of its own and leaves the placeholders empty.
    return (
        isinstance(mission, BabyAIMissionSpace)
        or getattr(mission, "ordered_placeholders", None) is not None
    )


class GridObservation(gym.Wrapper[Observation, int, Any, Any], gym.utils.RecordConstructorArgs):
    """A MiniGrid or BabyAI world of the Python package, seen through ``observation_space(parts)``.

    At an episode's end ``info["is_success"]`` tells whether its last reward was positive, and an
    episode that the world itself ended on the last allowed step is terminated, not truncated.

    Raises:
        ObservationPartsError: see ``check_parts``.
        UnsupportedSpaceError: a view of another size than ``VIEW``, more actions than seven or, in
            an episode, cells of objects or colours that MiniGrid does not have.
    """

    def __init__(self, env: gym.Env[Any, Any], parts: Sequence[str] = PARTS) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, parts=parts)
        gym.Wrapper.__init__(self, env)
        self.parts = check_parts(parts)
        _check_world(env)
        self.observation_space = observation_space(self.parts)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see ``gymnasium.Env.reset``."""
        raw, info = self.env.reset(seed=seed, options=options)
        return self._observation(raw, NO_ACTION), info

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act once; see ``gymnasium.Env.step``."""
        raw, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info["is_success"] = float(reward) > 0
        observation = self._observation(raw, int(action))
        return observation, float(reward), terminated, truncated and not terminated, info

    def _observation(self, raw: Observation, previous_action: int) -> Observation:
        if (raw["image"] > IMAGE_HIGH).any():
            raise UnsupportedSpaceError(
                f"{_name(self)} shows cells with (object, colour, state) codes above {IMAGE_HIGH}, "
                "which are MiniGrid's largest: use its objects and colours"
            )
        every = {
            "image": raw["image"],
            "direction": np.int64(raw["direction"]),
            "previous_action": np.int64(previous_action),
            "mission": tokenize(raw["mission"]).copy(),
        }
        return {part: every[part] for part in self.parts}


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _check_world(env: gym.Env[Any, Any]) -> None:
    """Check that a MiniGrid world of somebody's own sees and acts as the registered ones do."""
    name = _name(env)
    seen, actions = env.observation_space, env.action_space
    parts = seen.spaces if isinstance(seen, spaces.Dict) else {}
    view = parts["image"].shape if {"image", "direction", "mission"} <= parts.keys() else seen
    if view != VIEW:
        raise UnsupportedSpaceError(
            f"{name} sees {view}: only MiniGrid's own observations with a view of {VIEW} can be "
            "used; leave agent_view_size at 7, and wrappers away"
        )
    if not (isinstance(actions, spaces.Discrete) and actions.n <= NO_ACTION):
        raise UnsupportedSpaceError(
            f"{name} takes actions {actions}: only Discrete ones, at most {NO_ACTION}, can be used "
            "in a MiniGrid world"
        )
