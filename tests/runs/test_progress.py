"""The lines that training prints where there is no terminal."""

from __future__ import annotations

import pytest

from relagent.runs.progress import TrainingProgress


def test_the_rate_is_that_since_the_first_update(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("relagent.runs.progress.time.monotonic", lambda: now)
    with TrainingProgress(1300, 100, "updates") as shown:
        now += 50  # compiles
        shown.update(101)
        now += 10
        shown.update(121, "loss 1")
        now += 20
        shown.update(161)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "101/1,300 updates"
    assert second == "161/1,300 updates, 2.0 updates/s, 9.5 min left, loss 1"
