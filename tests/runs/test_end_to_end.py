"""A small training command: interrupted, damaged and resumed, it ends as if nothing happened."""

import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = Path(__file__).with_name("toy_command.py")


def toy(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command in this process and give its exit code."""
    monkeypatch.setattr(sys, "argv", [str(COMMAND), *words])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(COMMAND), run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert toy(monkeypatch, "--run-dir", "whole") == 0
    cut = Path("cut")
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--run-dir", "cut", "--pause", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 60
        while len(list(cut.glob("checkpoints/checkpoint-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        assert child.returncode == code
    if code > 0:
        assert "--resume cut" in out
        assert err.count("\n") == 2  # the notice, on a line of its own
    last = max(cut.glob("checkpoints/checkpoint-*"))
    last.write_bytes(b"damaged")
    capsys.readouterr()
    assert toy(monkeypatch, "--resume", "cut", "--pause", "0") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: cannot use {last}: ")
    for name in (
        "metrics.jsonl",
        "checkpoints/checkpoint-000000000040.safetensors",
        "checkpoints/checkpoint-000000000050.safetensors",
    ):
        assert (cut / name).read_bytes() == (Path("whole") / name).read_bytes()


def test_bad_requests_are_one_line_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert toy(monkeypatch, "--steps", "10") == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for words, part in (
        (["--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["--steps", "0"], "steps is 0; it must be at least 1"),
        (["--steps", "10"], "holds a run already"),
        (["--resume", "absent"], "no run at absent"),
    ):
        capsys.readouterr()
        assert toy(monkeypatch, *words) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert part in line
        assert line.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
