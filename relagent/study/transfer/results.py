"""The result of one task: a small JSON file with all that the report needs.

Rewards of single episodes are kept as text: base64 of zlib-compressed little-endian 16-bit numbers,
each a reward in units of 1/50,000 (MiniGrid's rewards lie in [0, 1]).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relagent.envs import PAIRS
from relagent.memories import MEMORIES
from relagent.runs.files import write_atomically
from relagent.study.curve import POINTS, thin
from relagent.study.result_file import (
    ResultError,
    read_folder,
    read_result_file,
    require,
    require_curves,
)
from relagent.study.transfer.protocol import NAMES

FORMAT = 1
UNIT = 50_000

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class WorldResult:
    """What one run scored in one world, with sampled or greedy actions.

    Attributes:
        world: the world's id.
        actions: ``sampled`` or ``greedy``.
        reward: mean over episodes.
        interval: 95% bootstrap interval of that mean over episodes.
        success: share of successful episodes.
        length: mean length in steps.
        rewards: float64 [N], each episode's reward.
    """

    world: str
    actions: str
    reward: float
    interval: tuple[float, float]
    success: float
    length: float
    rewards: Array

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "world": self.world,
            "actions": self.actions,
            "reward": self.reward,
            "interval": list(self.interval),
            "success": self.success,
            "length": self.length,
            "rewards": encode_rewards(self.rewards),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorldResult:
        """Read what :meth:`to_json` wrote."""
        low, high = data["interval"]
        return cls(
            world=str(data["world"]),
            actions=str(data["actions"]),
            reward=float(data["reward"]),
            interval=(float(low), float(high)),
            success=float(data["success"]),
            length=float(data["length"]),
            rewards=decode_rewards(data["rewards"]),
        )


@dataclass(frozen=True)
class RunResult:
    """The result of one task.

    Attributes:
        protocol: name of the protocol.
        pair: name of the pair.
        memory: name of the memory.
        seed: of the run.
        steps: environment steps really trained for.
        config: the run's settings.
        evaluation: how it was scored: episodes in each world, number format.
        worlds: the scores.
        curve: ``steps``, ``reward``, ``success`` during training, thinned.
        seconds: of ``training`` and ``playing``, over all sessions.
        command: the words that make this result again.
        provenance: versions, commit and machine of training and playing.
        checkpoint: where the final checkpoint is, from the folder of runs.
    """

    protocol: str
    pair: str
    memory: str
    seed: int
    steps: int
    config: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    worlds: tuple[WorldResult, ...]
    curve: Mapping[str, list[float]]
    seconds: Mapping[str, float]
    command: tuple[str, ...]
    provenance: Mapping[str, Any]
    checkpoint: str

    @property
    def name(self) -> str:
        """``ours-doorkey-rel-s0``."""
        return f"{self.protocol}-{self.pair}-{self.memory}-s{self.seed}"

    def world(self, env_id: str, actions: str = "sampled") -> WorldResult | None:
        """The score in a world, None where it was not played."""
        return next((w for w in self.worlds if (w.world, w.actions) == (env_id, actions)), None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        seconds = {name: round(value, 1) for name, value in self.seconds.items()}
        training = seconds["training"]
        return {
            "format": FORMAT,
            "protocol": self.protocol,
            "pair": self.pair,
            "memory": self.memory,
            "seed": self.seed,
            "steps": self.steps,
            "config": dict(self.config),
            "evaluation": dict(self.evaluation),
            "command": list(self.command),
            "seconds": seconds,
            "steps_per_second": round(self.steps / training, 1) if training else None,
            "checkpoint": self.checkpoint,
            "provenance": dict(self.provenance),
            "worlds": [world.to_json() for world in self.worlds],
            "curve": dict(self.curve),
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; its folder is made where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _lines(self.to_json()).encode())


def read_result(path: Path) -> RunResult:
    """Read one result file.

    Raises:
        ResultError: it cannot be read, or is none.
    """
    return read_result_file(path, FORMAT, _parsed)


def _parsed(data: Mapping[str, Any]) -> RunResult:
    result = RunResult(
        protocol=str(data["protocol"]),
        pair=str(data["pair"]),
        memory=str(data["memory"]),
        seed=int(data["seed"]),
        steps=int(data["steps"]),
        config=dict(data["config"]),
        evaluation=dict(data["evaluation"]),
        worlds=tuple(map(WorldResult.from_json, data["worlds"])),
        curve={
            name: [int(v) if name == "steps" else float(v) for v in values]
            for name, values in data["curve"].items()
        },
        seconds={name: float(value) for name, value in data["seconds"].items()},
        command=tuple(map(str, data["command"])),
        provenance=dict(data["provenance"]),
        checkpoint=str(data["checkpoint"]),
    )
    pair = next((pair for pair in PAIRS if pair.name == result.pair), None)
    if pair is None or result.memory not in MEMORIES:
        raise ValueError(f"{result.pair} with {result.memory} is not known")
    require(result.evaluation, "episodes", "precision")
    if type(result.evaluation["episodes"]) is not int:
        raise ValueError(f"its episodes are {result.evaluation['episodes']!r}, no number")
    if result.protocol not in NAMES and "--protocol" not in result.command[:-1]:
        raise ValueError(f"its command does not name the protocol {result.protocol}")
    parts = ("training", "playing", "machine")
    if not all(isinstance(result.provenance.get(name, {}), dict) for name in parts):
        raise ValueError("its provenance is none")
    for played in result.worlds:
        # Stored rewards are rounded to 1 / UNIT; NaN is near nothing.
        if not (played.rewards.size and abs(played.reward - played.rewards.mean()) <= 1 / UNIT):
            raise ValueError(
                f"its reward in {played.world}, {played.reward:g}, is not the mean of the episodes"
            )
    require(result.seconds, "training", "playing")
    require_curves(result.curve, "steps", "reward", "success")
    for world in (pair.train_id, pair.test_id):
        if result.world(world) is None:
            raise ValueError(f"{world} was not played")
    return result


def read_results(folder: Path) -> list[RunResult]:
    """Read all result files; see :func:`~relagent.study.result_file.read_folder`."""
    return read_folder(folder, read_result, lambda result: result.name)


def encode_rewards(rewards: Array) -> str:
    """Rewards [N] in [0, 1] as text, exact to 1e-5.

    Raises:
        ResultError: a reward outside [0, 1].
    """
    if rewards.size and not (rewards.min() >= 0 and rewards.max() <= 1):
        raise ResultError(
            f"rewards reach from {rewards.min():g} to {rewards.max():g}: only worlds with rewards "
            "in [0, 1] can be studied"
        )
    numbers = np.round(rewards * UNIT).astype("<u2")
    return base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode()


def decode_rewards(text: str) -> Array:
    """Read what :func:`encode_rewards` wrote: float64 [N].

    Raises:
        ValueError: it is nothing of that kind.
    """
    try:
        # At most 8 MB, whatever a damaged file may claim to hold.
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 2**23)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return np.frombuffer(content, dtype="<u2").astype(np.float64) / UNIT


def thin_curve(rows: list[dict[str, Any]], points: int = POINTS) -> dict[str, list[float]]:
    """Average a run's metrics over at most ``points`` stretches of equally many rows.

    Returns:
        ``steps`` at the end of each stretch, and mean ``reward`` and ``success`` in it, both of
        the last 100 episodes at each row; rows before the first finished episode are left out.
    """
    names = {"reward": "rollout/ep_rew_mean", "success": "rollout/success_rate"}
    return thin(rows, names, points)


def _lines(data: Mapping[str, Any]) -> str:
    """JSON with one line a key, and one a world: short, and a change shows as one line."""
    parts = []
    for name, value in data.items():
        if name == "worlds":
            inner = ",\n  ".join(json.dumps(world, allow_nan=False) for world in value)
            parts.append(f'"worlds": [\n  {inner}\n ]')
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"
