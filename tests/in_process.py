"""Commands in the tests' own process, since a new one takes seconds to start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relagent.runs.cli import main_guard


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
