"""The commands, as a user gives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relagent.study.__main__ import main
from relagent.study.supervised.result import read_result
from tests.in_process import run_command

SMALL = ["--hidden-size", "8", "--log-every", "4", "--evaluate-every", "5", "--jobs", "2"]


def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Run the command in this process; its children are real. Gives exit code and messages."""
    capfd.readouterr()
    code = run_command(monkeypatch, main, "study", *words)
    return code, capfd.readouterr().err


def test_help_tells_the_study_s_own_defaults(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "mnist", "--help"])
    with pytest.raises(SystemExit):
        main()
    said = " ".join(capfd.readouterr().out.split())
    assert "7 makes 112 steps. (default: 7)" in said
    assert "Sequences in a batch. (default: 32 with --group 7)" in said


def test_a_grid_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["copy", "--memories", "lstm", "rel-rnn", "--T", "6", *SMALL]
    code, said = command(monkeypatch, capfd, *words, "--updates", "10")
    assert code == 0, said
    assert "runs: 2, finished: 0" in said
    assert "next: python -m relagent.study report --results results/copy" in said
    results = [
        read_result(Path("results/copy/runs", f"T6-{memory}-s0.json"))
        for memory in ("rel-rnn", "lstm")
    ]
    assert [result.updates for result in results] == [10, 10]
    assert results[0].config["threads"] == 1
    assert Path("runs/copy/T6-lstm-s0/config.json").is_file()

    # Nothing finished is done again, also when less is asked for.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, said = command(monkeypatch, capfd, *words, "--updates", "5")
    assert code == 0
    assert "runs: 2, finished: 2" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    # Nothing is mixed with what was made otherwise: that is said before anything starts.
    code, said = command(monkeypatch, capfd, *words, "--batch-size", "5", "--updates", "10")
    assert code == 2
    assert "made with batch_size 10, now it is 5: ask for the same" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    # More is gone on with, and reported.
    words = ["copy", "--memories", "lstm", "--T", "6", *SMALL, "--updates", "15"]
    code, said = command(monkeypatch, capfd, *words)
    assert code == 0, said
    result = read_result(Path("results/copy/runs/T6-lstm-s0.json"))
    assert result.updates == 15
    assert result.provenance["sessions"] == 2
    code, _ = command(monkeypatch, capfd, "report", "--results", "results/copy")
    assert code == 0
    assert "unsolved in 15" in Path("results/copy/README.md").read_text()


def test_interrupted_it_saves(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "relagent.study", "denoise", "--memories", "lstm", "--T", "30"]
    with subprocess.Popen(
        [*words, *SMALL, "--updates", "1000000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as study:
        run = tmp_path / "runs/denoise/T30-lstm-s0"
        end = time.monotonic() + 240
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").stat().st_size:
            assert time.monotonic() < end
            time.sleep(0.05)
        study.send_signal(signal.SIGINT)
        assert study.stderr is not None
        said = study.stderr.read()
        assert study.wait(timeout=120) == 130
    assert "stopped; the same command goes on where it was" in said
    assert len(list((run / "checkpoints").glob("*.safetensors"))) == 1
    assert not list(tmp_path.glob("results/*/*"))
    config = json.loads((run / "config.json").read_text())
    assert (config["task"], config["T"], config["device"]) == ("denoise", 30, "cpu")


def test_bad_requests_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAGENT_DATA", str(tmp_path / "nowhere"))
    for words, part in (
        (["copy", "--T", "50"], "delay 50 is not in the default grid of copy: say --memories too"),
        (["copy", "--memories", "rell"], "invalid choice: 'rell'"),
        (["copy", "--root", "/dev/null/x"], "/dev/null/x: Not a directory"),
        (["copy", "--T", "0"], "it must be a whole number of at least 1, not '0'"),
        (["copy", "--updates", "0"], "it must be a whole number of at least 1, not '0'"),
        (["copy", "--memory", "rel"], "use --memories"),
        (["copy", "--seed", "3"], "use --seeds"),
        (["copy", "--threads", "3"], "each run has one thread"),
        (["copy", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (
            ["copy", "--memories", "lstm", "--nu", "3"],
            "none of these memories has --nu: leave it out",
        ),
        (["mnist", "--T", "3"], "unrecognized arguments: --T 3"),
        (["mnist"], "mnist not found in"),
        (["ptb"], "ptb not found in"),
        (["peak", "--memories", "x"], "invalid choice: 'x'"),
        (["peak", "--results", "/dev/null/x"], "cannot write /dev/null/x"),
        (["report", "--results", "nowhere"], "make some with python -m relagent.study"),
    ):
        code, said = command(monkeypatch, capfd, *words)
        assert code == 2, words
        assert said.startswith("error: "), said
        assert part in said
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
