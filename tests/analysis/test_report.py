"""The page of any run, and what the command says to bad input."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from relagent.analysis import draw
from relagent.analysis.__main__ import main
from relagent.analysis.attention_map import _largest_of_blocks
from relagent.analysis.findings import Findings, Sight
from relagent.analysis.measures import Paths
from relagent.analysis.sequences import take_sequences
from relagent.memories import MEMORIES, kernels
from relagent.runs.cli import main_guard
from relagent.tasks.base import cross_entropy
from relagent.tasks.defaults import default_config
from relagent.tasks.run import load_model
from relagent.tasks.train import DivergenceError, train

ATTENTIVE = {"mem", "rel", "mem-rnn", "rel-rnn"}


def read(folder: Path) -> tuple[str, dict[str, Any]]:
    return (folder / "analysis.md").read_text(), json.loads((folder / "analysis.json").read_text())


def check_files(folder: Path, page: str) -> set[str]:
    """The files that the page names are there, and no others; returns the pictures."""
    files = {path.name for path in folder.iterdir()} - {"analysis.md", "analysis.json"}
    assert files == set(re.findall(r"\]\(([^)]+)\)", page))
    heading, *rows = (folder / "gradients.csv").read_text().splitlines()
    assert heading.startswith("steps_before_end,total_low,total_median") and rows
    files.remove("gradients.csv")
    for name in files:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    return files


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_any_task_run_has_a_page(
    memory: str, task_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = task_run(memory)
    main([str(run), "--sequences", "3"])
    assert capsys.readouterr().out == f"{run}/analysis/analysis.md\n"
    page, data = read(run / "analysis")
    found = data["findings"]
    assert page.startswith(f"# {memory} on copy\n")
    assert found["sequences"] == 3 and found["steps"] == [26]
    assert 0 <= found["accuracy"] <= 1
    expected = {"gradients.png"}
    if memory in ATTENTIVE:
        expected |= {"attention.png", "depth.png"}
        assert found["kappa"] == (20 if "rel" in memory else 26)
        assert 0 < found["attention_entropy"] < np.log(26)
        assert sum(found["depth"]["counts"]) == 3 * 26
        assert found["depth"]["mean"] <= found["depth_noticed"]["mean"]
    else:
        assert "kappa" not in found
    if memory in ATTENTIVE | {"sab"}:
        assert 0 < found["gradient_through_attention"] < 1
        assert page.count("cannot tell what it attended to") == (memory == "sab")
    else:
        assert page.count("This memory has no attention") == 1
        assert page.count("there is no picture of it") == 1
        assert "cannot tell" not in page
    # Nothing but the loss's own ten steps reaches a memory that remembers nothing.
    assert found["steps_without_gradient"] == (pytest.approx(16 / 26) if memory == "none" else 0)
    assert check_files(run / "analysis", page) == expected


def test_a_gradient_that_float32_cannot_tell_from_0_is_told(tmp_path: Path) -> None:
    settings = {"T": 800, "hidden_size": 8, "updates": 1, "batch_size": 2}
    with kernels.disable():  # compiling takes longer
        train(default_config("copy", "lstm", evaluation_batches=1, **settings), tmp_path / "run")
        main([str(tmp_path / "run"), "--sequences", "2"])
    found = read(tmp_path / "run" / "analysis")[1]["findings"]
    assert found["steps_without_gradient"] == 0
    assert 0 < found["gradient_first_tenth"] < torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(("nu", "told"), [(4, True), (5, False)])
def test_no_delay_is_averaged_over_no_steps(nu: int, told: bool, tmp_path: Path) -> None:
    config = default_config(
        "copy", "rel-rnn", T=6, hidden_size=8, nu=nu, rho=3, updates=1, evaluation_batches=1,
        batch_size=2,
    )  # fmt: skip
    train(config, tmp_path / "run")
    main([str(tmp_path / "run"), "--sequences", "2"])
    page, data = read(tmp_path / "run" / "analysis")
    assert ("symbols" in data["findings"]) == told
    assert "nan" not in page.lower()


def test_copy_by_a_relevant_set_says_which_symbols_states_it_lives_on(
    task_run: Callable[[str], Path], tmp_path: Path
) -> None:
    heading = "## What the symbols' states are good for"
    main([str(task_run("rel")), "--sequences", "3", "--out", str(tmp_path / "short")])
    assert heading not in read(tmp_path / "short")[0]  # of 6 steps: the buffer still holds some
    config = default_config(
        "copy", "rel-rnn", T=6, hidden_size=8, nu=2, rho=3, updates=1, evaluation_batches=1,
        batch_size=2,
    )  # fmt: skip
    train(config, tmp_path / "run")
    main([str(tmp_path / "run"), "--sequences", "3"])
    page, data = read(tmp_path / "run" / "analysis")
    found = data["findings"]["symbols"]
    assert heading in page
    assert np.mean(found["recalled"]) == pytest.approx(data["findings"]["accuracy"])
    lines = re.findall(r"^\| \d+ \|.*$", page, flags=re.MULTILINE)
    assert len(lines) == 10
    assert lines[9].startswith(f"| 10 | {100 * found['recalled'][9]:.1f}% |")


@pytest.mark.parametrize("memory", ["rel", "lstm", "none"])
def test_any_agent_has_a_page(
    memory: str, agent_run: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "page"
    words = ["--sequences", "2", "--episode", "5", "--env", "MiniGrid-Empty-6x6-v0"]
    main([str(agent_run(memory)), "--out", str(out), *words])
    page, data = read(out)
    assert page.startswith(f"# {memory} in MiniGrid-Empty-6x6-v0\n")
    assert len(data["findings"]["steps"]) == 2
    assert data["config"]["episode"] == 5
    assert ("nu 5, rho 5" in page) is (memory == "rel")
    expected = {"gradients.png", "choices.png"}
    if memory == "rel":
        expected |= {"attention.png", "depth.png"}
    assert check_files(out, page) == expected


def test_steps_without_a_gradient_are_not_the_most_important() -> None:
    norms = np.array([0.0, 0.2, 0.0, 0.3, 0.0])
    assert draw._most_important(norms) == [1, 3, 4]
    assert draw._most_important(np.zeros(5)) == [4]


@pytest.mark.parametrize(("positive", "marker"), [(1, "."), (30, "."), (31, "")])
def test_few_values_are_dots(positive: int, marker: str) -> None:
    axes = Figure().add_subplot()
    draw.draw_curve(axes, np.array([1.0] * positive + [0.0] * 1000), "black")
    assert axes.lines[0].get_marker() == marker


def test_an_episode_of_one_step_has_pictures() -> None:
    norms = torch.rand(1, 1)
    for steps in ([0], [2]):
        axes = Figure().add_subplot()
        draw._draw_choices(axes.figure, axes, steps, norms.double().numpy())
        assert axes.get_ylim() == (steps[0] + 0.5, steps[0] - 0.5)


def test_the_same_run_gives_the_same_page(task_run: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        main([str(task_run("rel")), "--out", str(tmp_path / name), "--sequences", "2"])
    for path in (tmp_path / "a").iterdir():
        if path.suffix != ".json":  # it holds the time
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_loss_is_that_of_the_scored_steps(task_run: Callable[[str], Path]) -> None:
    taken = take_sequences(load_model(task_run("rel-rnn")), 4)
    y, _ = taken.memory.unroll(taken.x, taken.memory.initial_state(4))
    weighted = taken.batch._replace(weight=taken.batch.scored.float())
    torch.testing.assert_close(taken.loss(y), 4 * cross_entropy(taken.head(y), weighted))
    assert taken.batch.scored.sum() == 40


def test_profile_counts_from_the_end() -> None:
    def sight(values: list[float]) -> Sight:
        norms = torch.tensor(values)[:, None]
        return Sight(None, Paths(norms, norms, torch.zeros_like(norms)))

    findings = Findings((sight([7.0, 1.0, 2.0]), sight([3.0, 4.0])), attends=False)
    profile = findings.profile(lambda paths: paths.total)
    np.testing.assert_allclose(profile.median, [3, 2, 7])
    np.testing.assert_allclose(profile.low, [2.5, 1.5, 7])
    np.testing.assert_allclose(profile.together, [10**0.5, 5**0.5, 7])
    assert findings.curve_rows()[2] == {
        "steps_before_end": "2",
        **{f"total_{part}": "7" for part in ("low", "median", "high", "together")},
    }
    large = findings.profile(lambda paths: paths.total.double() * 1e300)
    np.testing.assert_allclose(large.together, np.array([10**0.5, 5**0.5, 7]) * 1e300)
    overflow = Findings((sight([2.0, math.inf]), sight([3.0, 4.0])), attends=False)
    assert overflow.profile(lambda paths: paths.total).together[0] == math.inf
    assert not findings.traced
    # Each sequence has its own first and last tenth, here one step.
    numbers = findings.numbers()
    assert numbers["gradient_first_tenth"] == 5
    assert numbers["gradient_last_tenth"] == 3


def test_thin_lines_survive_a_small_picture() -> None:
    matrix = np.full((10, 10), np.nan)
    matrix[7, 2], matrix[8, 2] = 0.25, 0.75
    small = _largest_of_blocks(matrix, 3)
    assert small.shape == (4, 4)
    assert small[2, 0] == 0.75
    assert np.isnan(small).sum() == 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no run at nowhere"),
        (["{task}", "--sequences", "0"], "at least 1"),
        (["{task}", "--sequences", "10001"], "at most 10,000"),
        (["{task}", "--env", "MiniGrid-Empty-5x5-v0"], "plays no episodes"),
        (["{agent}", "--env", "CartPole-v1"], "choose such a world"),
        (["{agent}", "--episode", "-1"], "negative"),
        (["{task}", "--out", "{task}/config.json"], "cannot write"),
        (["{task}", "--out", ""], "must name a folder"),
        (["{task}", "--data", "x"], "copy needs none"),
        (["{agent}", "--data", "x"], "an agent's run needs none"),
        (["{broken}"], "broken/config.json"),
        (["{strange}"], "strange/config.json"),
        (["{diverged}"], "training diverged"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    said: str,
    task_run: Callable[[str], Path],
    agent_run: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"task": ["copy"]}')
    places = {"task": task_run("rel"), "agent": agent_run("rel")}
    places |= {name: tmp_path / name for name in ("broken", "strange")}
    places["diverged"] = tmp_path / "diverged"
    endless = default_config(
        "copy", "rel", T=5, hidden_size=4, updates=3, optimizer="rmsprop", learning_rate=1e38
    )
    with pytest.raises(DivergenceError):
        train(endless, places["diverged"])
    capsys.readouterr()
    assert main_guard(lambda: main([word.format(**places) for word in words])) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert said in message
    assert not any((places[name] / "analysis").exists() for name in ("strange", "diverged"))


def test_the_command_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relagent.analysis", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no run at nowhere")
