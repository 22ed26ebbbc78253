"""Texts that the pages of all studies share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def listed(values: Iterable[str]) -> str:
    """Different values, sorted, numbers by size: ``a / b`` and ``200 / 1,000``."""
    return " / ".join(sorted(set(values), key=_rank))


def _rank(text: str) -> tuple[float, str]:
    try:
        return float(text.replace(",", "")), text
    except ValueError:
        return math.inf, text


def machines(results: Iterable[Any]) -> str:
    """The machines of results, in words; the GPU where it was used.

    Args:
        results: with ``provenance`` and ``config``.
    """
    return listed(_machine(run.provenance.get("machine", {}), run.config) for run in results)


def versions(results: Iterable[Any], *parts: str) -> str:
    """The versions of all packages, of some parts (``training``, ...) of the provenance."""
    found: dict[str, set[str]] = {}
    for run in results:
        for part in parts:
            for made_with in _of(run, part, "versions"):
                for package, version in made_with.items():
                    if version is not None:
                        found.setdefault(package, set()).add(str(version))
    return ", ".join(f"{name} {listed(which)}" for name, which in found.items())


def backends(results: Iterable[Any]) -> str:
    """What ran the training worlds, with its version."""
    return listed(
        str(session["backend"])
        for run in results
        for session in _sessions(run, "training")
        if session.get("backend")
    )


def commits(results: Iterable[Any]) -> str:
    """The commits that trained, in words."""
    found = listed(
        f"`{str(git.get('commit'))[:10]}`" + (" with changes" if git.get("dirty") else "")
        for run in results
        for git in _of(run, "training", "git")
    )
    return found or "unknown"


def untold_sessions(results: Iterable[Any]) -> str:
    """A line on runs of which no more than the first session is known, if there are any."""
    if all(r.provenance.get("sessions", 1) <= len(_sessions(r, "training")) for r in results):
        return ""
    return "\n- Of some runs that were resumed, versions and commit are those of the first part."


def _of(run: Any, part: str, key: str) -> list[Mapping[str, object]]:
    """What a part of the provenance says of something, or each session of training."""
    told = (session.get(key) for session in _sessions(run, part))
    return [value for value in told if isinstance(value, Mapping)]


def _sessions(run: Any, part: str) -> list[Mapping[str, Any]]:
    later = run.provenance.get("resumed", []) if part == "training" else []
    return [run.provenance.get(part, {}), *later]


def _machine(machine: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    words = [f"{machine.get('processor')}, {machine.get('cores')} cores"]
    if machine.get("memory_gib"):
        words.append(f"{machine['memory_gib']:.0f} GiB")
    if machine.get("gpu") and config.get("device") != "cpu":
        words.append(str(machine["gpu"]))
    return ", ".join(words)
