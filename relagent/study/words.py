"""Texts that the pages of all studies share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def listed(values: Iterable[str]) -> str:
    """Different values, sorted: ``a / b``."""
    return " / ".join(sorted(set(values)))


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
            for package, version in _of(run, part, "versions").items():
                if version is not None:
                    found.setdefault(package, set()).add(str(version))
    return ", ".join(f"{name} {listed(which)}" for name, which in found.items())


def commits(results: Iterable[Any]) -> str:
    """The commits that trained, in words."""
    found = listed(
        f"`{str(git.get('commit'))[:10]}`" + (" with changes" if git.get("dirty") else "")
        for run in results
        if (git := _of(run, "training", "git"))
    )
    return found or "unknown"


def _of(run: Any, part: str, key: str) -> Mapping[str, object]:
    value = run.provenance.get(part, {}).get(key)
    return value if isinstance(value, Mapping) else {}


def _machine(machine: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    words = [f"{machine.get('processor')}, {machine.get('cores')} cores"]
    if machine.get("memory_gib"):
        words.append(f"{machine['memory_gib']:.0f} GiB")
    if machine.get("gpu") and config.get("device") != "cpu":
        words.append(str(machine["gpu"]))
    return ", ".join(words)
