"""``python -m relagent.tasks``: errors in one line, signals, and scores at other delays."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relagent.rl.train import TrainConfig
from relagent.runs.config import to_json
from relagent.tasks.__main__ import main
from relagent.tasks.defaults import default_config
from tests.in_process import run_command

from .standins import write_mnist


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command in this process and give its exit code."""
    return run_command(monkeypatch, main, "tasks", *words)


SMALL = ("--hidden-size", "8", "--T", "5", "--updates", "6", "--evaluate-every", "3")


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAGENT_DATA", str(tmp_path / "nowhere"))
    assert command(monkeypatch, "copy", "--memory", "lstm", *SMALL, "--run-dir", "run") == 0
    write_mnist(tmp_path / "damaged/mnist")
    (tmp_path / "damaged/mnist/train-images-idx3-ubyte.gz").write_bytes(b"no")
    Path("agent").mkdir()
    Path("agent/config.json").write_text(json.dumps(to_json(TrainConfig(env="any"))))
    Path("text").mkdir()
    text = default_config("ptb", "lstm", data=str(tmp_path / "gone"))
    Path("text/config.json").write_text(json.dumps(to_json(text)))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for words, part in (
        (["copi"], "invalid choice: 'copi'"),
        (["copy", "--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["copy", "--task", "denoise"], "invalid choice: 'denoise'"),
        (["copy", "--threads", "100000"], "at most 1,024"),
        (["copy", "--T", "0"], "T is 0; it must be at least 1"),
        (["copy", "--memory", "rell"], "did you mean rel"),
        (["copy", "--memory", "lstm", "--nu", "3"], "nu is 3; lstm takes none"),
        (["copy", "--memory", "goru", "--hidden-size", "9"], "power of 2"),
        (["copy", "--device", "tpu"], "unknown device 'tpu'"),
        (["copy", "--run-dir", "run"], "holds a run already"),
        (["copy", "--run-dir", ""], "it must name a folder; . is this one"),
        (["copy", "--resume", "absent"], "no run at absent"),
        (["copy", "--resume", "run", "--T", "9"], "T of this run is 5 and cannot become 9"),
        (["denoise", "--resume", "run"], "run is a run of copy"),
        (["copy", "--resume", "agent"], "not of a task: python train_rl.py --resume agent goes on"),
        (["transfer-copy", "agent"], "agent is a run of an agent, not of a task"),
        (["copy", "--resume", "run", "--run-dir", "x"], "give one"),
        (["mnist", "--memory", "rel"], "mnist not found in"),
        (["mnist", "--data", "damaged"], "it is no whole gzip file"),
        (["ptb"], "ptb not found in"),
        (["ptb", "--data", "~nosuchuser/x"], "ptb not found in"),
        (["ptb", "--memory", "goru", "--hidden-size", "100"], "power of 2"),
        (["transfer-copy", "absent"], "no run at absent"),
        (["transfer-copy", "text"], "a run of ptb, which has no delay T"),
        (
            ["transfer-copy", "run", "--T", "0"],
            "a whole number of at least 1, not '0'",
        ),
    ):
        capsys.readouterr()
        assert command(monkeypatch, *words) == 2, words
        line = capsys.readouterr().err
        assert line.startswith("error: "), line
        assert part in line
        assert line.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_scores_at_other_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("copy", "denoise"):
        assert command(monkeypatch, name, "--memory", "rel", *SMALL, "--run-dir", name) == 0
        words = ("--T", "7", "30", "--batches", "2", "--batch-size", "3")
        assert command(monkeypatch, "transfer-copy", name, *words) == 0
        assert "accuracy" in capsys.readouterr().out
        content = json.loads(Path(name, "transfer-copy.json").read_bytes())
        assert (content["memory"], content["trained_T"], content["updates"]) == ("rel", 5, 6)
        assert [score["T"] for score in content["scores"]] == [7, 30]
        assert all(score["sequences"] == 6 for score in content["scores"])
        assert all(0 <= score["accuracy"] <= 1 for score in content["scores"])
    assert command(monkeypatch, "transfer-copy", "copy", "--T", "9", "7", "--batches", "1") == 0
    content = json.loads(Path("copy", "transfer-copy.json").read_bytes())
    assert [(score["T"], score["sequences"]) for score in content["scores"]] == [
        (7, 100), (9, 100), (30, 6),
    ]  # fmt: skip

    Path("copy/transfer-copy.json").unlink()
    Path("copy/transfer-copy.json").mkdir()
    capsys.readouterr()
    assert command(monkeypatch, "transfer-copy", "copy", "--T", "7", "--batches", "1") == 2
    said = capsys.readouterr()
    assert said.out.startswith("T = 7: accuracy ")
    assert said.err.startswith("error: cannot write copy/transfer-copy.json")


def test_the_default_memory_and_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "copy", *SMALL, "--nu", "4", "--run-dir", "run") == 0
    config = json.loads(Path("run/config.json").read_bytes())
    assert (config["memory"], config["nu"], config["rho"]) == ("rel-rnn", 4, 10)
    assert config["learning_rate"] == 2e-4


def test_signals_save(tmp_path: Path) -> None:
    words = ["copy", "--memory", "lstm", "--hidden-size", "8", "--T", "20", "--log-every", "5"]
    words += ["--updates", "100000", "--threads", "1", "--run-dir"]
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143}
    children = {
        number: subprocess.Popen(
            [sys.executable, "-m", "relagent.tasks", *words, f"a {number.name}"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in codes
    }
    deadline = time.monotonic() + 240
    for number, child in children.items():
        with child:
            metrics = tmp_path / f"a {number.name}" / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size > 0):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            child.send_signal(number)
            _, err = child.communicate(timeout=120)
        assert child.returncode == codes[number], err
        assert f"go on with: python -m relagent.tasks copy --resume 'a {number.name}'" in err
        assert len(list((tmp_path / f"a {number.name}" / "checkpoints").glob("*.safetensors"))) == 1
