"""What is told of the machine and of the code is true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from relagent.runs import provenance
from relagent.runs.machine import peak_resident


def test_the_peak_is_this_process_own() -> None:
    """A child counts what it held itself, not what its parent held at the fork."""
    large = np.ones(2**26)  # half a GiB, touched
    assert peak_resident() > large.nbytes
    code = "from relagent.runs.machine import peak_resident; print(peak_resident())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert 2**20 < int(child.stdout) < large.nbytes


def test_only_changes_to_the_code_make_a_checkout_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        name = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True)

    module = tmp_path / "relagent" / "provenance.py"
    module.parent.mkdir()
    module.write_text("code\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(module))

    def dirty() -> bool:
        found = provenance.provenance()["git"]
        assert len(found["commit"]) == 40
        return bool(found["dirty"])

    assert not dirty()
    (tmp_path / "result.json").write_text("{}")
    assert not dirty()
    (module.parent / "new.py").write_text("code\n")
    assert dirty()
