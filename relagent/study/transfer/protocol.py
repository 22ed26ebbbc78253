"""Protocols: one settings file each, the same for all memories, so that none is tuned alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from relagent.envs import PAIRS, Pair
from relagent.errors import RelagentError
from relagent.rl.train import TrainConfig

FOLDER = Path(__file__).with_name("protocols")
NAMES = ("ours", "paper")

# These make the task, or say where it is computed; a protocol says how it is learned.
_NOT_SETTINGS = ("env", "memory", "seed", "device", "threads", "backend")


class ProtocolError(RelagentError):
    """A protocol that does not exist or says something impossible."""


@dataclass(frozen=True)
class Protocol:
    """How every run of a study is trained.

    Attributes:
        name: the file's name without its suffix.
        description: one sentence for the report.
        memories: the memories that the protocol is meant for.
        seeds: how many seeds it is meant for.
        settings: of :class:`~relagent.rl.train.TrainConfig`; its defaults hold for the rest.
        pairs: what differs for a pair, by its name: ``{"reason": ..., "settings": ...}``.
        file: the file's name, without its folder; None for one of :data:`NAMES`.
    """

    name: str
    description: str
    memories: tuple[str, ...]
    seeds: int
    settings: Mapping[str, Any]
    pairs: Mapping[str, Mapping[str, Any]]
    file: str | None = None

    def config(
        self, pair: Pair, memory: str, seed: int, *, steps: int | None = None, device: str = "cpu"
    ) -> TrainConfig:
        """The settings of one run, with one thread.

        Args:
            pair: its training world is trained on.
            memory: name of a memory.
            seed: of the run.
            steps: instead of the protocol's.
            device: where to compute.

        Raises:
            ConfigError: a value cannot work.
        """
        settings = {**self.settings, **self.pairs.get(pair.name, {}).get("settings", {})}
        if steps is not None:
            settings["steps"] = steps
        return TrainConfig(
            env=pair.train_id, memory=memory, seed=seed, device=device, threads=1, **settings
        )

    def to_json(self) -> dict[str, Any]:
        """The content of the protocol's file."""
        return {
            "description": self.description,
            "memories": list(self.memories),
            "seeds": self.seeds,
            "settings": dict(self.settings),
            "pairs": {name: dict(entry) for name, entry in self.pairs.items()},
        }


def load_protocol(name: str) -> Protocol:
    """Read ``ours``, ``paper``, or a JSON file of the same form.

    Raises:
        ProtocolError: there is no such protocol, or its file cannot be used.
    """
    path = FOLDER / f"{name}.json" if name in NAMES else Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise ProtocolError(
            f"no protocol {name!r}: choose {' or '.join(NAMES)}, or give a JSON file of that form"
        )
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProtocolError(f"cannot read {path}: {error}; it must be a JSON file") from error
    if path.stem in NAMES and name not in NAMES:
        raise ProtocolError(f"{path} is named like another protocol: give the file another name")
    return protocol_from_json(path.stem, data, None if name in NAMES else path.name)


def protocol_from_json(name: str, data: Any, file: str | None = None) -> Protocol:
    """Make a protocol of its file's content.

    Raises:
        ProtocolError: a key is missing or unknown, or a setting is none.
        ConfigError: a value cannot work.
    """
    keys = {"description": str, "memories": list, "seeds": int, "settings": dict, "pairs": dict}
    if not isinstance(data, dict) or set(data) != set(keys):
        raise ProtocolError(f"protocol {name!r} must have the keys {', '.join(keys)} and no others")
    for key, kind in keys.items():
        if not isinstance(data[key], kind):
            raise ProtocolError(f"{key} of protocol {name!r} must be a {kind.__name__}")
    if data["seeds"] < 1 or not data["memories"]:
        raise ProtocolError(f"protocol {name!r} must have at least one seed and one memory")
    known = {pair.name for pair in PAIRS}
    for pair, entry in data["pairs"].items():
        if pair not in known:
            raise ProtocolError(
                f"protocol {name!r} names a pair {pair!r}: there are {', '.join(sorted(known))}"
            )
        if (
            not isinstance(entry, dict)
            or set(entry) != {"reason", "settings"}
            or not isinstance(entry["settings"], dict)
        ):
            raise ProtocolError(
                f"what protocol {name!r} does differently for {pair} must have a reason and "
                "settings, an object"
            )
    allowed = {field.name for field in fields(TrainConfig)} - set(_NOT_SETTINGS)
    for settings in (data["settings"], *(entry["settings"] for entry in data["pairs"].values())):
        if wrong := set(settings) - allowed:
            raise ProtocolError(
                f"protocol {name!r} sets {', '.join(sorted(wrong))}: it may set "
                f"{', '.join(sorted(allowed))}"
            )
    protocol = Protocol(
        name=name,
        description=data["description"],
        memories=tuple(data["memories"]),
        seeds=data["seeds"],
        settings=data["settings"],
        pairs=data["pairs"],
        file=file,
    )
    for pair in PAIRS:
        for memory in protocol.memories:
            protocol.config(pair, memory, 0)
    return protocol
