"""Figures of trained models: trained once, read again, judged as they should be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from relagent.analysis import figures, kept
from relagent.analysis.findings import Profile
from relagent.analysis.peak import peak_megabytes
from relagent.analysis.trained import (
    Norms,
    StoppedError,
    TrainedConfig,
    norms_of,
    run_of,
    trained,
    untrained,
)
from relagent.analysis.trained_figures import COMPARED, HeatmapsConfig, figure3_verdict
from relagent.memories import kernels
from relagent.runs.cli import main_guard
from relagent.runs.config import ConfigError
from tests.tasks.standins import write_mnist

TINY = ["--T", "5", "--updates", "2", "--hidden-size", "4", "--sequences", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs: what one test trained, the next one reads."""
    return tmp_path_factory.mktemp("runs")


def draw(name: str, runs: Path, out: Path, *words: str) -> dict[str, Any]:
    with kernels.disable():
        assert figures.main([name, "--out", str(out), "--runs", str(runs), *TINY, *words]) == 0
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / f"{name}.json").read_text()
    assert str(out) not in text and str(runs) not in text
    data: dict[str, Any] = json.loads(text)
    assert data["settings"]["T"] == 5
    begin = ["python", "-m", "relagent.analysis.figures", name, "--T", "5"]
    assert data["provenance"]["command"][:6] == begin
    return data


def test_figure3_trains_once_and_reads_again(runs: Path, tmp_path: Path) -> None:
    data = draw("figure3", runs, tmp_path / "a")
    assert set(data["models"]) == {f"{n}={v}" for n in ("rho", "nu") for v in (3, 8, 18, 25)}
    assert isinstance(data["rho_3_spans_most"], bool)
    made = {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")}
    assert len(made) == 8
    again = draw("figure3", runs, tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")} == made
    assert again["models"] == data["models"]


def test_what_was_measured_of_a_model_is_enough(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the trained models the figure is the same, but for the last digits of its curves."""
    data = draw("figure3", runs, tmp_path)
    picture = imread(tmp_path / "figure3.png")
    again = draw("figure3", tmp_path / "nothing", tmp_path)
    assert not (tmp_path / "nothing").exists()
    assert again["models"] == data["models"]
    assert np.abs(imread(tmp_path / "figure3.png") - picture).mean() < 1e-3

    words = ["figure3", "--runs", str(runs), "--out", str(tmp_path), *TINY]
    capsys.readouterr()
    assert main_guard(lambda: figures.main([*words, "--learning-rate", "0.5"])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "choose another --out" in message
    first = tmp_path / "models" / "denoise-rel-T5-n4-nu15-rho3-s0.json"
    first.write_text('{"settings": [1], "row": {}, "profile": null}')
    assert main_guard(lambda: figures.main(words)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "remove it" in message


def test_an_infinite_gradient_is_kept_as_nothing_to_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainedConfig(T=5, hidden_size=4)
    model = config.settings("copy", "lstm", 0)
    endless = Profile(*np.array([[1.0, np.inf]] * 4))
    norms = dict.fromkeys(Norms._fields, 1.0)
    found = kept.Measured({"seed": 0, "accuracy": 0.5, **norms}, endless)
    monkeypatch.setattr(kept, "_measure", lambda *_: found)
    kept.measured(model, config, tmp_path, lambda: False)
    again = kept.measured(model, config, tmp_path, lambda: False)
    assert again.row == found.row and again.profile is not None
    np.testing.assert_array_equal(again.profile.median, [1.0, np.nan])


def test_figure3_of_some_models(tmp_path: Path) -> None:
    some = draw("figure3", tmp_path / "runs", tmp_path, "--only", "rho=8")
    assert [name for name, rows in some["models"].items() if rows] == ["rho=8"]
    assert "span" not in some
    more = draw("figure3", tmp_path / "runs", tmp_path, "--only", "nu=3")
    assert [name for name, rows in more["models"].items() if rows] == ["rho=8", "nu=3"]
    assert more["models"]["rho=8"] == some["models"]["rho=8"]


def test_memories_and_tradeoff_share_their_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw("memories", runs, tmp_path)
    assert set(data["models"]) == set(COMPARED)
    # Eight processes would take long; the measurement has a test of its own.
    monkeypatch.setattr("relagent.analysis.trained_figures.peak_megabytes", lambda *_, **__: 7.0)
    made = len(list(runs.glob("*/result.json")))
    price = draw("tradeoff", runs, tmp_path)
    assert len(list(runs.glob("*/result.json"))) == made
    for memory, found in price["models"].items():
        assert found["megabytes"] == 7.0
        row = {k: v for k, v in data["models"][memory][0].items() if k != "untrained"}
        assert found["models"][0] == row


def test_heatmaps_of_some_tasks(runs: Path, tmp_path: Path) -> None:
    data = draw("heatmaps", runs, tmp_path, "--tasks", "copy", "denoise", "--nu", "3")
    assert list(data["models"]) == ["copy rho=10", "copy rho=0", "denoise rho=10", "denoise rho=0"]
    # With the buffer alone, nothing older than ν steps is attended to.
    assert data["models"]["copy rho=0"]["attended_age"] < 2


@pytest.mark.parametrize("words", [["memories"], ["heatmaps", "--tasks", "copy"]])
def test_an_impossible_buffer_is_told_before_anything_is_trained(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "--nu", "0", "--runs", str(tmp_path / "runs"), *TINY]
    assert main_guard(lambda: figures.main(words)) == 2
    assert "nu=0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_of_other_settings_is_not_taken(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw("heatmaps", runs, tmp_path, "--tasks", "copy", "--nu", "3")
    capsys.readouterr()
    words = ["heatmaps", "--runs", str(runs), "--tasks", "copy", "--nu", "3", *TINY]
    with kernels.disable():
        assert main_guard(lambda: figures.main([*words, "--learning-rate", "0.5"])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "choose another --runs" in message


def test_how_often_a_run_was_saved_does_not_matter(runs: Path) -> None:
    config = TrainedConfig(T=5, updates=4, hidden_size=4).settings("copy", "lstm", 7)
    first = trained(config, runs, lambda: False)
    other = replace(config, checkpoint_minutes=9.0, threads=2)
    assert trained(other, runs, lambda: False).updates == first.updates


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    config = TrainedConfig(T=5, updates=4, hidden_size=4).settings("copy", "lstm", 0)
    polls = 0

    def stop() -> bool:
        nonlocal polls
        polls += 1
        return polls > 2

    with kernels.disable():
        with pytest.raises(StoppedError, match="goes on"):
            trained(config, tmp_path, stop)
        assert not (run_of(config, tmp_path) / "result.json").exists()
        loaded = trained(config, tmp_path, lambda: False)
        whole = trained(config, tmp_path / "whole", lambda: False)
    assert loaded.updates == whole.updates == 4
    for ours, theirs in zip(loaded.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_model_that_diverges_is_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An infinite step leaves weights that are no numbers: the second update is not taken.
    words = ("--optimizer", "rmsprop", "--learning-rate", "1e38")
    data = draw("figure3", tmp_path / "runs", tmp_path, *words)
    rows = [row for rows in data["models"].values() for row in rows]
    assert [row for row in rows if row["accuracy"] is None and row["diverged"] == 2] == rows
    assert "training diverged at update 2" in capsys.readouterr().err
    assert data["span"]["rho"] == [None] * 4 and not data["rho_3_spans_most"]
    heat = draw("heatmaps", tmp_path / "runs", tmp_path, "--tasks", "copy", *words)
    assert heat["models"]["copy rho=0"] == {"accuracy": None}


def test_untrained_is_what_a_run_starts_from() -> None:
    config = TrainedConfig(T=5, hidden_size=4).settings("copy", "rel", 3)
    before = torch.random.get_rng_state()
    first, second = untrained(config).model, untrained(config).model
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    from relagent.tasks.run import make_model

    third = make_model(config, config.make_task())
    for a, b, c in zip(first.parameters(), second.parameters(), third.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_norms_by_hand() -> None:
    steps = torch.logspace(-10, 0, 101, dtype=torch.float64)[:, None].expand(101, 3)
    found = norms_of(steps)
    # Of 101 steps the first ten are 1e-10 ... 1e-9.1, the last ten 1e-0.9 ... 1.
    ends = (10**-9.6 + 10**-9.5) / 2, (10**-0.5 + 10**-0.4) / 2
    np.testing.assert_allclose(found, (1e-5, 9.0, *ends), rtol=1e-9)
    # Where one sequence passes nothing on, another one may.
    alternating = torch.eye(2, dtype=torch.float64).repeat(10, 1)
    found = norms_of(alternating)
    np.testing.assert_allclose(found[:2], (0.5**0.5, 0.0))
    assert norms_of(torch.zeros(20, 1)).plain()["span"] is None


def test_verdict_of_figure3() -> None:
    def models(rho: list[float | None], nu: list[float | None]) -> dict[str, list[dict[str, Any]]]:
        sizes = (3, 8, 18, 25)
        named = {f"rho={s}": [{"span": v}] for s, v in zip(sizes, rho, strict=True)}
        return named | {f"nu={s}": [{"span": v}] for s, v in zip(sizes, nu, strict=True)}

    held = figure3_verdict(models([5, 2, 2, 1], [2, 2, 1, 1]))
    assert held["rho_3_spans_most"] and held["nu_matters_less"]
    failed = figure3_verdict(models([1, 2, 2, 1], [4, 2, 1, 1]))
    assert not failed["rho_3_spans_most"] and not failed["nu_matters_less"]
    vanished = figure3_verdict(models([None, 2, 2, 1], [2, 2, 1, 1]))
    assert vanished["rho_3_spans_most"]
    assert vanished["span"]["rho"][0] is None


def test_full_attention_has_the_higher_peak() -> None:
    config = TrainedConfig(T=150, hidden_size=32)
    few, many = (
        peak_megabytes(config.settings("copy", memory, 0, batch_size=50), definition=True)
        for memory in ("lstm", "mem")
    )
    # Its remembered states alone, kept once: T²/2 · B · H · 4 bytes.
    assert many > 170**2 / 2 * 50 * 32 * 4 / 1e6
    assert 0 <= few < many / 2


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TrainedConfig(seeds=0)


def test_mnist_reads_seven_pixels_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", size=7)
    monkeypatch.setenv("RELAGENT_DATA", str(tmp_path))
    config = HeatmapsConfig().model("mnist", 0)
    assert config.make_task().input_size == 7
    assert (config.nu, config.rho) == (10, 0)
