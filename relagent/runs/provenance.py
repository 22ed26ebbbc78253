"""What made a run: versions, commit, machine and command, without naming a person or a host."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from relagent.runs.machine import machine

PACKAGES = (
    "relagent",
    "torch",
    "numpy",
    "numba",
    "gymnasium",
    "minigrid",
    "envpool",
    "stable-baselines3",
    "sb3-contrib",
)

CODE = ("relagent", "envs", "pyproject.toml")
"""What decides what a run does; results and notes that lie beside it do not."""


def provenance(
    *, device: str = "cpu", backend: str | None = None, command: list[str] | None = None
) -> dict[str, Any]:
    """Describe this process as a JSON object.

    Args:
        device: the torch device in use.
        backend: where the environments or the data come from ("envpool", "minigrid", ...).
        command: the words of the command line; by default this process's.
    """
    words = _own_command() if command is None else command
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(words[0]).name, *map(_without_home, words[1:])] if words else [],
        "device": device,
        "backend": backend,
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "git": _git(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "machine": machine(),
    }


def _own_command() -> list[str]:
    """The words that started this process; Python's own options are not among them."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is None:  # a script
        return sys.argv
    return ["python", "-m", module.name.removesuffix(".__main__"), *sys.argv[1:]]


def _without_home(word: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home() raises where there is none)
    return word.replace(home, "~") if len(home) > 1 else word


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that holds this very file, and whether its code was changed.

    None for an installed package.
    """
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        # A virtual environment may lie in the checkout of something else.
        git("ls-files", "--error-unmatch", here.name)
        changes = git("status", "--porcelain", "--", *(f":/{name}" for name in CODE))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return None
