"""The command that draws the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from relagent.analysis import figures


def test_draws_the_same_file_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        figures.main(["theorem2", "--out", str(tmp_path / folder)])
    first, second = (tmp_path / folder / "theorem2.png" for folder in ("a", "b"))
    assert first.read_bytes().startswith(b"\x89PNG")
    assert first.read_bytes() == second.read_bytes()
    assert capsys.readouterr().out.splitlines() == [str(first), str(second)]


def test_unknown_figure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        figures.main(["nope"])
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "theorem1" in message
