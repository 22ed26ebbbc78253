"""``train_rl.py`` end to end, as a user runs it: train, interrupt, resume, and go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from relagent.envs import make_vec_env
from relagent.rl import MemoryPPO, load_policy
from tests.in_process import run_script

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("--env", "MiniGrid-DoorKey-5x5-v0", "--memory", "rel", "--nu", "3", "--rho", "2"),
    *("--n-envs", "8", "--n-steps", "32", "--batch-size", "64", "--hidden-size", "16"),
    *("--n-epochs", "2", "--checkpoint-every", "3000", "--threads", "1"),
    *("--blind-spells", "0.2", "--dead-cells", "0.2"),
]


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Run the script in this process and give its exit code."""
    return run_script(monkeypatch, "train_rl.py", *words)


def files(run: Path) -> dict[str, bytes]:
    kept = [run / "metrics.jsonl", *sorted((run / "checkpoints").glob("*.safetensors"))]
    return {path.name: path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    words = [sys.executable, str(ROOT / "train_rl.py"), *SMALL, "--steps", "5000"]
    words += ["--run-dir", str(run)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert f"run directory: {run}" in done.stderr
    assert f"evaluate_transfer.py {run}" in done.stderr
    return run


def test_a_run_directory_holds_all_that_was_promised(finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert config["env"] == "MiniGrid-DoorKey-5x5-v0" and config["nu"] == 3
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["backend"].startswith(("envpool", "minigrid"))
    assert provenance["versions"]["torch"]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(256, 5121, 256))
    wanted = {"approx_kl", "clip_fraction", "entropy_loss", "explained_variance", "gradient_norm"}
    assert {f"train/{name}" for name in wanted} <= rows[-1].keys()
    looked = [row for row in rows if "memory/attention_entropy" in row]
    assert looked and all(row["memory/attention_entropy"] >= 0 for row in looked)
    assert len(list((finished / "checkpoints").iterdir())) == 2


def test_tensorboard_has_the_scalars_and_the_hyperparameters(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"rollout/ep_rew_mean", "rollout/success_rate", "time/fps"} <= set(tags["scalars"])
    assert {"train/loss", "memory/relevant_turnover"} <= set(tags["scalars"])
    assert "_hparams_/experiment" in events.summary_metadata


def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "cut"
    words = [sys.executable, str(ROOT / "train_rl.py"), *SMALL, "--steps", "5000"]
    process = subprocess.Popen(
        [*words, "--run-dir", str(run)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    # Somewhere in the middle; where exactly is up to the machine, and must not matter.
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"--resume {run}" in errors

    assert call(monkeypatch, "--resume", run) == 0
    assert files(run) == files(finished)


@pytest.mark.parametrize("steps", ["1000", "3000"])  # the second where a checkpoint is due
def test_a_finished_run_goes_on_to_more_steps(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    run = tmp_path / "short"
    assert call(monkeypatch, *SMALL, "--steps", steps, "--run-dir", run) == 0
    assert call(monkeypatch, "--resume", run, "--steps", "5000") == 0
    ours, whole = files(run), files(finished)
    assert ours.keys() == whole.keys()
    # The first checkpoint kept may be the shorter run's last, which knows where that was to end.
    for name in ("metrics.jsonl", max(whole)):
        assert ours[name] == whole[name]


def test_a_run_that_was_never_saved_begins_anew(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "killed")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert call(monkeypatch, "--resume", run) == 0
    assert files(run) == files(finished)


def test_a_stop_says_which_options_go_on(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(finished, tmp_path / "longer")
    monkeypatch.setattr(MemoryPPO, "train", lambda _: signal.raise_signal(signal.SIGTERM))
    assert call(monkeypatch, "--resume", run, "--steps", "900000") == 128 + signal.SIGTERM
    assert f"python train_rl.py --resume {run} --steps 900000" in capsys.readouterr().err


def test_a_run_can_be_loaded_to_train_on(finished: Path) -> None:
    env = make_vec_env("MiniGrid-DoorKey-6x6-v0", 4, 0)
    model = MemoryPPO.load(finished, env, n_steps=16)
    policy = load_policy(finished).policy
    ours, theirs = model.policy.state_dict(), policy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    model.learn(64)
    assert model.num_timesteps == 64


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(finished, tmp_path / "damaged")
    newest = sorted((run / "checkpoints").iterdir())[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert call(monkeypatch, "--resume", run) == 0
    errors = capsys.readouterr().err
    warnings = [line for line in errors.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1 and newest.name in warnings[0]
    assert files(run) == files(finished)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--env", "MiniGrid-DoorKy-5x5-v0"], "MiniGrid-DoorKey-5x5-v0"),
        (["--memory", "rell"], "did you mean rel"),
        (["--nu", "0"], "nu=0"),
        (["--rho", "-1"], "rho=-1"),
        (["--steps", "0"], "at least 1"),
        (["--n-envs", "-3"], "at least 1"),
        (["--learning-rate", "nan"], "learning"),
        (["--dead-cells", "1.5"], "between 0 and 1"),
        (["--device", "tpu"], "auto, cpu or cuda"),
        (["--device", "cpu:"], "auto, cpu or cuda"),
        (["--seed", "5000000000"], "less than 2**32"),
        (["--memory", "lstm", "--rho", "3"], "lstm takes none"),
        (["--env", "CartPole-v1", "--blind-spells", "0.5"], "CartPole-v1 is no grid world"),
        (["--batch-size", "1"], "whole worlds"),
        (["--parts", "smell"], "smell"),
        (["--step", "5"], "--step"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = words if "--resume" in words else [*SMALL, *words, "--run-dir", str(tmp_path / "run")]
    assert call(monkeypatch, *given) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert says in errors
    assert not (tmp_path / "run").exists()


def test_what_changes_a_run_on_resuming_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "CartPole-v1", "--memory", "none", "--n-envs", "2", "--n-steps", "8"]
    words += ["--learning-rate-end", "0", "--steps", "16", "--run-dir", str(tmp_path)]
    assert call(monkeypatch, *words) == 0
    capsys.readouterr()
    assert call(monkeypatch, "--resume", tmp_path, "--steps", "32") == 0
    warning = "warning: the step size was to be annealed over 16 steps, now over 32"
    assert warning in capsys.readouterr().err
    monkeypatch.setattr("relagent.rl.train.backend_of", lambda worlds: "another 1.0")
    assert call(monkeypatch, "--resume", tmp_path, "--steps", "48") == 2
    assert "simulated by another 1.0, saved with gymnasium" in capsys.readouterr().err


def test_checkpoints_that_leave_episodes_no_room_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "CartPole-v1", "--memory", "none", "--n-envs", "2", "--n-steps", "8"]
    warning = (
        "warning: in 16 steps from checkpoint to checkpoint there is no room for 4 episodes of"
    )
    for steps, warned in ((16, False), (32, True)):
        run = tmp_path / str(steps)
        given = ["--steps", str(steps), "--checkpoint-every", "16", "--run-dir", str(run)]
        assert call(monkeypatch, *words, *given) == 0
        errors = capsys.readouterr().err
        assert (warning in errors) == warned
    assert "500 steps in 2 worlds" in errors and "--checkpoint-every 4000 gives them" in errors


def test_an_old_run_is_never_written_over(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    assert call(monkeypatch, *SMALL, "--run-dir", finished) == 2
    assert "--resume" in capsys.readouterr().err
    assert call(monkeypatch, "--resume", finished, "--nu", "4") == 2
    assert "nu of this run is 3" in capsys.readouterr().err
    assert files(finished) == before


def test_the_package_works_beside_a_foreign_envs_folder(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("raise RuntimeError('the wrong envs')\n")
    code = (
        "import relagent.envs, relagent.rl.train;"
        "print(relagent.envs.make_vec_env('MiniGrid-Empty-5x5-v0', 1, 0).num_envs)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr
