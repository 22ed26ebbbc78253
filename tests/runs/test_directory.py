"""A run directory holds one run, has one writer, and can be taken up where it was saved."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from relagent.runs.checkpoint import CheckpointNotFoundError, CheckpointWriteError
from relagent.runs.config import Config, option
from relagent.runs.directory import (
    RunDamagedError,
    RunDirectory,
    RunExistsError,
    RunInUseError,
    RunNotFoundError,
    RunPathError,
    default_run_path,
)
from relagent.runs.files import WriteError, output_folder
from relagent.runs.provenance import provenance


@dataclass(frozen=True)
class Settings(Config):
    seed: int = option(0, "Seed.")


@dataclass(frozen=True)
class OtherSettings(Config):
    task: str = option("copy", "Task.")


def test_a_run_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with RunDirectory.create(path, Settings(3), provenance(backend="envpool")) as run:
        run.log_metrics(5, {"reward": 0.5})
        saved = run.save_checkpoint(5, {"w": torch.ones(2)}, {"n": 1})
        assert saved.parent == path / "checkpoints"
        watcher = RunDirectory.open(path)  # reading needs no lock
        assert watcher.read_config(Settings) == Settings(3)
        assert watcher.read_provenance()["backend"] == "envpool"
        assert watcher.read_metrics() == [{"step": 5, "reward": 0.5}]
        assert watcher.load_checkpoint().data == {"n": 1}
    assert json.loads((path / "config.json").read_text()) == {"seed": 3}


def test_one_folder_holds_one_run(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, Settings(3), {}).close()
    with pytest.raises(RunExistsError, match=re.escape(f"--resume {tmp_path}")):
        RunDirectory.create(tmp_path, Settings(4), {})
    run = RunDirectory.open_for_resume(tmp_path)  # the refusal let go of the lock
    assert run.read_config(Settings) == Settings(3)
    run.close()
    (tmp_path / "lost" / "checkpoints").mkdir(parents=True)
    (tmp_path / "lost" / "checkpoints" / "checkpoint-000000000005.safetensors").touch()
    with pytest.raises(RunExistsError):  # its config.json is gone, its checkpoints are not ours
        RunDirectory.create(tmp_path / "lost", Settings(), {})


def test_missing_and_damaged_runs(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no such folder"):
        RunDirectory.open(tmp_path / "absent")
    with pytest.raises(RunNotFoundError, match=r"no config\.json"):
        RunDirectory.open_for_resume(tmp_path)
    assert list(tmp_path.iterdir()) == []
    RunDirectory.create(tmp_path, Settings(3), {}).close()
    run = RunDirectory.open(tmp_path)
    with pytest.raises(CheckpointNotFoundError):
        run.load_checkpoint()
    with pytest.raises(RunDamagedError, match="unknown setting 'seed'"):
        run.read_config(OtherSettings)
    for content in (b"", b"\xff", b"[]", b"[" * 100_000, b'{"seed": "3"}', b"{}"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(RunDamagedError, match=r"config\.json") as caught:
            run.read_config(Settings)
        assert "\n" not in str(caught.value)
    (tmp_path / "provenance.json").unlink()
    with (
        RunDirectory.open_for_resume(tmp_path) as run,
        pytest.raises(RunDamagedError, match=r"provenance\.json"),
    ):
        run.rewind(0, {})


def test_who_resumed_is_noted(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, Settings(), {"device": "cpu"}).close()
    for device in ("cuda", "cpu"):
        with RunDirectory.open_for_resume(tmp_path) as run:
            run.rewind(0, {"device": device})
    RunDirectory.open_for_resume(tmp_path).close()  # took it over, and did not go on
    known = RunDirectory.open(tmp_path).read_provenance()
    assert known == {"device": "cpu", "resumed": [{"device": "cuda"}, {"device": "cpu"}]}
    (tmp_path / "provenance.json").write_text('{"resumed": 5}')
    run = RunDirectory.open_for_resume(tmp_path)
    with run, pytest.raises(RunDamagedError, match="provenance"):
        run.rewind(0, {"device": "cpu"})


HOLD = """
import sys, time
from relagent.runs.directory import RunDirectory
run = RunDirectory.open_for_resume(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_living_process_keeps_others_out(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, Settings(), {}).close()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        message = f"in use by process {child.pid};"
        with pytest.raises(RunInUseError, match=message):
            RunDirectory.open_for_resume(tmp_path)
        with pytest.raises(RunInUseError, match=message):
            RunDirectory.create(tmp_path, Settings(), {})
        child.send_signal(signal.SIGKILL)
    with (
        RunDirectory.open_for_resume(tmp_path),  # death let go of it
        pytest.raises(RunInUseError, match=f"process {os.getpid()};"),
    ):
        RunDirectory.open_for_resume(tmp_path)


def test_metrics_of_an_interrupted_run_equal_the_uninterrupted(tmp_path: Path) -> None:
    def work(run: RunDirectory, steps: range) -> None:
        for step in steps:
            run.log_metrics(step, {"reward": step / 3, "success": None if step % 2 else 1})
            if step % 4 == 0:
                run.save_checkpoint(step, {}, {"step": step})

    whole = RunDirectory.create(tmp_path / "whole", Settings(), {})
    work(whole, range(1, 12))
    cut = RunDirectory.create(tmp_path / "cut", Settings(), {})
    work(cut, range(1, 11))
    cut.close()
    with (tmp_path / "cut" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 11, "rew')  # killed in the middle of a row
    (last := cut.load_checkpoint().path).write_bytes(b"damaged")
    again = RunDirectory.open_for_resume(tmp_path / "cut")
    found = again.load_checkpoint()
    assert (found.step, len(found.skipped)) == (4, 1)
    again.rewind(found.step)
    assert again.read_metrics()[-1]["step"] == 4
    assert not last.exists()  # the damaged one does not count as one of the two that are kept
    assert again.load_checkpoint().skipped == ()
    work(again, range(5, 12))
    files = [tmp_path / name / "metrics.jsonl" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    again.close()
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    again.rewind(4)
    assert again.read_metrics() == []


def test_metrics_are_json_whatever_the_number(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, Settings(), {})
    values = {"a": math.nan, "b": np.float32(0.5), "c": torch.tensor(-math.inf), "d": "x", "e": 1}
    run.log_metrics(1, values)
    assert run.read_metrics() == [{"step": 1, "a": None, "b": 0.5, "c": None, "d": "x", "e": 1}]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full"
    run = RunDirectory.create(full, Settings(), {})
    run.log_metrics(1, {})
    run.save_checkpoint(1, {}, {})

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for attempt in (
            lambda: run.save_checkpoint(2, {}, {}),
            lambda: run.rewind(0),
            lambda: RunDirectory.create(tmp_path / "new", Settings(), {}),
        ):
            with pytest.raises((WriteError, CheckpointWriteError), match="No space left"):
                attempt()
    assert run.load_checkpoint().step == 1
    assert run.read_metrics() == [{"step": 1}]
    run.close()
    RunDirectory.create(tmp_path / "new", Settings(), {}).close()  # what failed is no run yet

    (full / "metrics.jsonl").unlink()
    (full / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"metrics\.jsonl: No space left on device"):
        run.log_metrics(2, {})


def test_a_row_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    import resource

    run = RunDirectory.create(tmp_path, Settings(), {})
    run.log_metrics(1, {"x": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))
    try:
        with pytest.raises(WriteError, match="File too large"):
            run.log_metrics(2, {"text": "y" * 50})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run.log_metrics(3, {"x": 3})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3]


def test_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunPathError, match="a file stands there; choose another path"):
            RunDirectory.create(path, Settings(), {})
    with pytest.raises(WriteError, match="cannot write") as caught:
        RunDirectory.create(Path("/proc/run"), Settings(), {})
    assert "\n" not in str(caught.value)


def test_provenance_names_versions_but_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    command = ["/home/someone/relagent/train_rl.py", "--run-dir", "/home/someone/runs/x"]
    known = provenance(device="cuda", backend="envpool", command=command)
    assert known["command"] == ["train_rl.py", "--run-dir", "~/runs/x"]
    assert known["versions"]["torch"] == torch.__version__
    assert known["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", known["started"])
    assert (known["device"], known["backend"], known["cpu_count"]) == (
        "cuda",
        "envpool",
        os.cpu_count(),
    )
    text = json.dumps(known)
    assert "someone" not in text
    assert len(os.uname().nodename) < 4 or os.uname().nodename not in text
    if known["git"] is not None:
        assert re.fullmatch("[0-9a-f]{40}", known["git"]["commit"])
    monkeypatch.setenv("PATH", "")
    assert provenance()["git"] is None


def test_the_command_of_a_module_can_be_given_again(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    code = "from relagent.runs.provenance import provenance; print(*provenance()['command'])"
    (tmp_path / "tool" / "__main__.py").write_text(code)
    words = [sys.executable, "-m", "tool", "--x", "1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "python -m tool --x 1\n"


def test_default_name() -> None:
    path = default_run_path("ALE/Pong-v5", "rel", 2)
    assert re.fullmatch(r"runs/ALE-Pong-v5-rel-s2-\d{8}-\d{6}", str(path))


def test_a_folder_made_in_vain_goes_again(tmp_path: Path) -> None:
    def compute(folder: Path, file: str | None = None) -> None:
        with pytest.raises(ValueError, match="failed"), output_folder(folder):
            assert folder.is_dir()
            if file is not None:
                (folder / file).touch()
            raise ValueError("failed")

    compute(tmp_path / "a" / "new")
    assert not (tmp_path / "a" / "new").exists()
    compute(tmp_path / "a")  # it was there before
    assert (tmp_path / "a").is_dir()
    compute(tmp_path / "kept", "half")
    assert (tmp_path / "kept" / "half").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file"), output_folder(tmp_path / "file"):
        raise AssertionError("nothing is computed")
