"""A checkpoint is there whole or not at all, and no damage goes unnoticed."""

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from relagent.runs import checkpoint as module
from relagent.runs import files
from relagent.runs.checkpoint import (
    CheckpointDamagedError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    checkpoints,
    load_checkpoint,
    load_file,
    newest,
    save_checkpoint,
    save_file,
)

TENSORS = {"weight": torch.arange(6, dtype=torch.float64).reshape(2, 3), "flag": torch.tensor(True)}
DATA = {"name": "é\ud800\n", "zeros": "0" * 64, "sha256": "0" * 64, "list": [1, None, {"b": 0.1}]}


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((100,), float(step))}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    save_file(tmp_path / "new" / "a", TENSORS, DATA)
    save_file(tmp_path / "b", dict(reversed(TENSORS.items())), DATA)
    back, data = load_file(tmp_path / "new" / "a")
    assert data == DATA
    assert list(data) == list(DATA)
    assert set(back) == set(TENSORS)
    assert all(torch.equal(back[name], TENSORS[name]) for name in TENSORS)
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert set(safetensors.torch.load_file(tmp_path / "b")) == set(TENSORS)  # any reader can


def test_views_and_shared_memory_are_written_out(tmp_path: Path) -> None:
    base = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    save_file(tmp_path / "x", {"a": base.T, "b": base, "empty": base[:0]}, {})
    back, _ = load_file(tmp_path / "x")
    assert torch.equal(back["a"], base.T)
    assert torch.equal(back["b"], base)
    assert back["empty"].shape == (0, 3)


def test_every_single_byte_matters(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file(path, TENSORS, {"a": [1, 2]})
    good = path.read_bytes()
    for position in range(len(good)):
        for flip in (0x01, 0x20, 0x80):  # 0x20 turns the header's padding, or a letter's case
            damaged = bytearray(good)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(CheckpointDamagedError):
                load_file(path)
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        with pytest.raises(CheckpointDamagedError):
            load_file(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(CheckpointDamagedError):
        load_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        safetensors.torch.save(TENSORS),
        safetensors.torch.save(TENSORS, {"relagent": "5"}),
        safetensors.torch.save(TENSORS, {"relagent": "[" * 100_000}),
        safetensors.torch.save(TENSORS, {"relagent": json.dumps({"sha256": 3, "data": {}})}),
        safetensors.torch.save(TENSORS, {"relagent": json.dumps({"sha256": "", "data": {}})}),
    ],
)
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointDamagedError) as caught:
        load_file(tmp_path / "x")
    assert "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['RELAGENT_TEST_TRACE']}",)


def test_a_pickle_in_its_place_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("RELAGENT_TEST_TRACE", str(trace))
    path = save_checkpoint(tmp_path / "c", 1, tensors(1), {})
    torch.save(Malicious(), path)
    with pytest.raises(CheckpointDamagedError):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointDamagedError):
        load_checkpoint(tmp_path / "c")
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the trap does work
    assert trace.exists()


def test_a_newer_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 2)
    save_file(tmp_path / "x", TENSORS, {})
    monkeypatch.setattr(module, "FORMAT", 1)
    with pytest.raises(CheckpointDamagedError, match=r"format is 2.*update relagent"):
        load_file(tmp_path / "x")


def test_data_that_is_no_json(tmp_path: Path) -> None:
    for bad in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(CheckpointWriteError, match="no JSON"):
            save_file(tmp_path / "x", TENSORS, bad)
    assert names(tmp_path) == []


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (100, 9, 2_000_000_000_000, 300, 200):
        path = save_checkpoint(tmp_path, step, tensors(step), {"n": step})
        assert path.exists()
    assert [load_checkpoint(p).step for p in checkpoints(tmp_path)] == [100, 200, 300, 2 * 10**12]
    save_checkpoint(tmp_path, 3 * 10**12, tensors(0), {})
    assert [p.name for p in checkpoints(tmp_path)] == [
        "checkpoint-2000000000000.safetensors",
        "checkpoint-3000000000000.safetensors",
    ]


def test_a_damaged_newest_one_is_passed_over_and_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint in"):
        newest(tmp_path)
    save_checkpoint(tmp_path, 1, tensors(1), {"n": 1})
    second = save_checkpoint(tmp_path, 2, tensors(2), {"n": 2})
    found = load_checkpoint(tmp_path)
    assert (found.step, found.data, found.path, found.skipped) == (2, {"n": 2}, second, ())
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    found = newest(tmp_path)
    assert (found.step, found.data) == (1, {"n": 1})
    assert torch.equal(found.tensors["weight"], tensors(1)["weight"])
    (line,) = found.skipped
    assert second.name in line
    assert "\n" not in line
    found.path.write_bytes(b"")
    with pytest.raises(CheckpointDamagedError, match="no usable checkpoint"):
        newest(tmp_path)


def test_a_saved_policy_is_no_checkpoint(tmp_path: Path) -> None:
    save_file(tmp_path / "policy", TENSORS, {"data": {}})
    with pytest.raises(CheckpointDamagedError, match="no checkpoint of a run"):
        load_checkpoint(tmp_path / "policy")
    with pytest.raises(CheckpointDamagedError, match="No such file"):
        load_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize("place", ["fsync", "replace", "write"])
def test_a_failing_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif place == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    if place == "write":  # the system itself says no, in the middle of the bytes
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        for step in (2, 3):
            with pytest.raises(CheckpointWriteError, match="untouched") as caught:
                save_checkpoint(tmp_path, step, tensors(step + 7), {})
            assert "\n" not in str(caught.value)
    finally:
        if place == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_permission_or_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match=r"Not a directory|File exists"):
        save_checkpoint(tmp_path / "file" / "c", 1, {}, {})
    with pytest.raises(CheckpointWriteError, match="/proc"):
        save_checkpoint("/proc/c", 1, {}, {})
    with pytest.raises(CheckpointWriteError, match="Is a directory"):
        save_file(tmp_path, {}, {})
    if os.geteuid() != 0:  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(CheckpointWriteError, match="Permission denied"):
            save_checkpoint(tmp_path, 1, {}, {})
        tmp_path.chmod(0o700)


HANG = """
import sys, time
from pathlib import Path
import torch
from relagent.runs import files
from relagent.runs.checkpoint import save_checkpoint

def hang(*args):
    print("half", flush=True)
    time.sleep(60)

tensors = {"weight": torch.full((100,), 5.0)}
save_checkpoint(sys.argv[1], 5, tensors, {})
if sys.argv[2] == "replace":
    Path.replace = hang
    save_checkpoint(sys.argv[1], 6, tensors, {})
print("ready", flush=True)
for step in range(6, 10**9):
    save_checkpoint(sys.argv[1], step, tensors, {"step": step})
"""


@pytest.mark.parametrize("moment", ["replace", 0.03])
def test_kill_in_the_middle_of_a_save(tmp_path: Path, moment: str | float) -> None:
    command = [sys.executable, "-c", HANG, str(tmp_path), str(moment)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == ("half" if moment == "replace" else "ready")
        if isinstance(moment, float):
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(moment)
        child.send_signal(signal.SIGKILL)
    found = newest(tmp_path)
    assert found.skipped == ()
    assert torch.equal(found.tensors["weight"], torch.full((100,), 5.0))
    if moment == "replace":
        assert found.step == 5
        assert len(list(tmp_path.glob(".tmp.*"))) == 1
    save_checkpoint(tmp_path, found.step + 1, tensors(1), {})
    assert len(names(tmp_path)) == 2  # what the killed process left behind is gone


def test_atomic_write_keeps_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write_atomically(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
