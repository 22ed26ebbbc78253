"""Commands in the tests' own process, since a new one takes seconds to start."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relagent.runs.cli import main_guard

ROOT = Path(__file__).resolve().parents[1]


def run_command(
    monkeypatch: pytest.MonkeyPatch, main: Callable[[], Any], *words: str | Path
) -> int:
    """Run a command's main function with its words, the command's own name first.

    Returns:
        The exit code that a process of its own would have.
    """
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    try:
        return main_guard(main)
    except SystemExit as stop:  # argparse leaves this way
        assert isinstance(stop.code, int)
        return stop.code


def load_script(script: str) -> Any:
    """Return a script of the repository as a module, by its path from the root."""
    specification = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run_script(monkeypatch: pytest.MonkeyPatch, script: str, *words: str | Path) -> int:
    """Run a script's main function with its words, and give its exit code."""
    return run_command(monkeypatch, load_script(script).main, script, *words)
