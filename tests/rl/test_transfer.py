"""From run directories to the report: grouping, worlds, errors and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relagent.envs import make_env
from relagent.memories import kernels
from relagent.rl import transfer
from relagent.rl.checkpoint import LoadedPolicy
from relagent.rl.episodes import MAX_STEPS
from relagent.rl.play import WorldMismatchError, play
from relagent.rl.policy import MemoryPolicy
from relagent.rl.train import TrainConfig, train
from relagent.rl.transfer import (
    TransferConfig,
    TransferError,
    evaluate,
    group_runs,
    paper_number,
    worlds_of,
)
from relagent.runs.config import ConfigError
from relagent.runs.device import DeviceError
from relagent.runs.directory import RunNotFoundError
from relagent.runs.files import WriteError

WORLD = "MiniGrid-GoToDoor-5x5-v0"
TEST_WORLD = "MiniGrid-GoToDoor-8x8-v0"
SCRIPT = Path(__file__).parents[2] / "evaluate_transfer.py"

Runs = dict[str, LoadedPolicy]


pytestmark = pytest.mark.usefixtures("no_kernels")


def loaded(
    seed: int = 0, memory: str = "rel", env: str = WORLD, steps: int = 128, nu: int = 5
) -> LoadedPolicy:
    world = make_env(env)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = MemoryPolicy(
            world.observation_space, world.action_space, lambda _: 1e-3, memory, hidden_size=8
        )
    config = TrainConfig(env=env, memory=memory, seed=seed, nu=nu)
    return LoadedPolicy(policy, config, steps, "envpool 1.2.5", Path(f"checkpoint-{steps}"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs by the name of their folder."""
    known: Runs = {}
    monkeypatch.setattr(transfer, "load_policy", lambda path: known[str(path)])
    return known


def test_seeds_make_one_row_and_everything_else_its_own(runs: Runs) -> None:
    runs |= {
        "b": loaded(seed=1),
        "a": loaded(seed=0),
        "other memory": loaded(memory="lstm"),
        "other options": loaded(nu=3),
        "trained for longer": loaded(steps=256),
    }
    groups = group_runs([Path(name) for name in runs])
    assert [list(group.runs) for group in groups] == [[0, 1], [0], [0], [0]]
    assert [group.label for group in groups] == ["rel nu=5", "lstm", "rel nu=3", "rel nu=5"]


def test_where_the_step_size_falls_planned_steps_are_a_setting(runs: Runs) -> None:
    for seed, steps in ((0, 512), (1, 1024)):
        run = loaded(seed=seed)
        config = replace(run.config, learning_rate_end=0.0, steps=steps)
        runs[str(steps)] = replace(run, config=config)
    assert len(group_runs([Path("512"), Path("1024")])) == 2


def test_an_id_without_its_version_is_the_same_world(runs: Runs) -> None:
    runs |= {"a": loaded(), "b": loaded(seed=1)}
    config = TrainConfig(env="minigrid:MiniGrid-GoToDoor-5x5", seed=1)
    runs["b"] = replace(runs["b"], config=config)
    (group,) = group_runs([Path("b"), Path("a")])
    assert worlds_of(group, TransferConfig(), []) == (WORLD, TEST_WORLD)
    (alone,) = group_runs([Path("b")])
    assert worlds_of(alone, TransferConfig(), []) == (WORLD, TEST_WORLD)


def test_a_world_is_played_once_however_it_is_spelled(runs: Runs) -> None:
    runs["a"] = loaded(env="CartPole-v1")
    (group,) = group_runs([Path("a")])
    asked = TransferConfig(worlds=("CartPole", "Acrobot-v1", "gymnasium:Acrobot-v1"))
    assert worlds_of(group, asked, []) == ("CartPole-v1", "Acrobot-v1")


def test_what_two_groups_lack_is_said_once(runs: Runs) -> None:
    runs |= {"a": loaded(env="CartPole-v1"), "b": loaded(env="CartPole-v1", memory="lstm")}
    report = transfer._score(group_runs([Path("a"), Path("b")]), TransferConfig(episodes=1), None)
    (note,) = report.notes
    assert note.startswith("CartPole-v1 has no test world in the paper")


def test_a_run_given_twice(runs: Runs) -> None:
    runs |= {"a": loaded(), "b": loaded()}
    with pytest.raises(TransferError, match="b and a have the same settings and the same seed 0"):
        group_runs([Path("a"), Path("b")])


def test_the_report_holds_what_the_policies_did(runs: Runs, tmp_path: Path) -> None:
    runs |= {"a": loaded(seed=0), "b": loaded(seed=1), "c": loaded(memory="lstm")}
    config = TransferConfig(episodes=2, workers=1, out=str(tmp_path / "deep" / "out"))
    report, folder = evaluate([Path(name) for name in runs], config)
    assert [(row.memory, row.world, row.actions, row.paper) for row in report.rows] == [
        ("rel", WORLD, "sampled", 0.25),
        ("rel", WORLD, "greedy", 0.25),
        ("rel", TEST_WORLD, "sampled", 0.15),
        ("rel", TEST_WORLD, "greedy", 0.15),
        ("lstm", WORLD, "sampled", None),
        ("lstm", WORLD, "greedy", None),
        ("lstm", TEST_WORLD, "sampled", None),
        ("lstm", TEST_WORLD, "greedy", None),
    ]
    for i, policy in enumerate((runs["a"].policy, runs["b"].policy)):
        alone = play(policy, TEST_WORLD, 2)
        assert np.array_equal(report.rows[2].rewards[i], alone.rewards)
        assert np.array_equal(report.rows[2].lengths[i], alone.lengths)
    data = json.loads((folder / "transfer.json").read_text())
    assert data["config"]["episodes"] == 2
    assert data["provenance"]["versions"]["minigrid"]
    assert [run["run"] for run in data["runs"]] == ["a", "b", "c"]
    assert [run["config"]["seed"] for run in data["runs"]] == [0, 1, 0]
    assert str(tmp_path) not in (folder / "transfer.json").read_text()


def test_worlds(runs: Runs) -> None:
    runs |= {
        "paired": loaded(),
        "test world": loaded(env=TEST_WORLD),
        "alone": loaded(env="MiniGrid-LavaGapS5-v0"),
    }
    paired, test, alone = group_runs([Path(name) for name in runs])
    middle, far = "MiniGrid-GoToDoor-6x6-v0", "MiniGrid-Fetch-5x5-N2-v0"
    notes: list[str] = []

    def worlds(group: transfer.Group, ladder: bool = False, *extra: str) -> tuple[str, ...]:
        return worlds_of(group, TransferConfig(ladder=ladder, worlds=extra), notes)

    assert worlds(paired) == (WORLD, TEST_WORLD)
    assert worlds(paired, True) == (WORLD, middle, TEST_WORLD)
    assert worlds(paired, False, far, middle) == (WORLD, middle, TEST_WORLD, far)
    assert worlds(paired, False, "minigrid:MiniGrid-GoToDoor-8x8") == (WORLD, TEST_WORLD)
    assert worlds(test) == (TEST_WORLD,)
    assert not notes
    assert worlds(alone) == ("MiniGrid-LavaGapS5-v0",)
    assert len(notes) == 1
    assert "no test world" in notes[0]


def test_a_world_without_a_time_limit_is_noted(runs: Runs, tmp_path: Path) -> None:
    runs["a"] = loaded(memory="none", env="CliffWalking-v1")
    config = TransferConfig(episodes=1, max_steps=5, workers=1, out=str(tmp_path))
    report, _ = evaluate([Path("a")], config)
    assert [row.lengths.tolist() for row in report.rows] == [[[5]], [[5]]]
    assert report.notes[-1].startswith("CliffWalking-v1 has no time limit: episodes are cut off")


def test_a_limit_that_no_world_needs_is_noted(runs: Runs, tmp_path: Path) -> None:
    runs["a"] = loaded(memory="none", env="CartPole-v1")
    for steps, noted in ((5, True), (MAX_STEPS, False)):
        config = TransferConfig(episodes=1, max_steps=steps, workers=1, out=str(tmp_path))
        report, _ = evaluate([Path("a")], config)
        assert any("--max-steps changed nothing" in note for note in report.notes) == noted


def test_paper_numbers() -> None:
    small, large = "MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-16x16-v0"
    assert [paper_number(small, w, m) for w in (small, large) for m in ("mem", "rel")] == [
        *(0.94, 0.93, 0.31, 0.44)
    ]
    assert paper_number("MiniGrid-DoorKey-5x5", "minigrid:MiniGrid-DoorKey-16x16", "rel") == 0.44
    assert paper_number(small, "MiniGrid-DoorKey-8x8-v0", "rel") is None
    assert paper_number(large, large, "rel") is None  # the paper trained on the small world
    assert paper_number(small, large, "lstm") is None


def test_what_cannot_be_reported_is_said_before_playing(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "play_all", lambda *_, **__: pytest.fail("played"))
    runs |= {"a": loaded(), "b": loaded(seed=1)}
    (tmp_path / "file").touch()
    a, b, out = Path("a"), Path("b"), str(tmp_path / "out")
    with pytest.raises(TransferError, match="--out"):
        evaluate([a, b], TransferConfig())
    with pytest.raises(WriteError, match="cannot write"):
        evaluate([a], TransferConfig(out=str(tmp_path / "file" / "out")))
    with pytest.raises(WorldMismatchError, match="Discrete"):
        evaluate([a], TransferConfig(out=out, worlds=("MiniGrid-Dynamic-Obstacles-5x5-v0",)))


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    for wrong in (
        {"episodes": 0},
        {"max_steps": 0},
        {"workers": 0},
        {"precision": "float16"},
        {"out": ""},
    ):
        with pytest.raises(ConfigError):
            TransferConfig(**wrong)
    with pytest.raises(DeviceError):
        TransferConfig(device="tpu")
    with pytest.raises(RunNotFoundError):
        group_runs([tmp_path])


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        env=WORLD,
        steps=32,
        n_envs=2,
        n_steps=16,
        batch_size=16,
        n_epochs=1,
        hidden_size=8,
        backend="minigrid",
        device="cpu",
    )
    with torch.random.fork_rng(), kernels.disable():
        train(config, path)
    return path


def test_the_command(trained_run: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(trained_run), "--episodes", "3", "--workers", "2"]
    command += ["--env", "MiniGrid-GoToDoor-6x6-v0", "--env", "MiniGrid-Fetch-5x5-N2-v0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = trained_run / "transfer"
    data = json.loads((folder / "transfer.json").read_text())
    assert [row["world"] for row in data["rows"][::2]] == [
        *(WORLD, "MiniGrid-GoToDoor-6x6-v0", TEST_WORLD, "MiniGrid-Fetch-5x5-N2-v0")
    ]
    assert data["rows"][0]["steps"] == 32
    for row in data["rows"]:
        assert f"{row['reward']:.3f} [{row['reward_low']:.3f}" in done.stdout
    assert (folder / "transfer.png").stat().st_size > 0
    # Another report does not take its place.
    again = TransferConfig(episodes=1, workers=1)
    assert [evaluate([trained_run], again)[1].name for _ in range(2)] == [
        "transfer-2",
        "transfer-3",
    ]
    assert json.loads((folder / "transfer.json").read_text()) == data


@pytest.mark.parametrize("seconds", [0.5, 6])  # while processes start, and while they play
def test_ctrl_c_ends_all_processes(trained_run: Path, tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, str(SCRIPT), str(trained_run), "--episodes", "100000"]
    command += ["--workers", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert "playing 400,000 episodes in 2 processes" in next(process.stderr)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process was left behind")
    assert not list(tmp_path.iterdir())
