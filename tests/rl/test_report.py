"""Intervals cover what they should, and every form of the report holds the same numbers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from rich.console import Console

from relagent.rl.figure import transfer_figure
from relagent.rl.report import Report, Row, SampleError, bootstrap_interval, short_name
from relagent.runs.files import WriteError


def make_row(seeds: int = 2, world: str = "MiniGrid-DoorKey-16x16-v0", memory: str = "rel") -> Row:
    generator = np.random.default_rng(seeds)
    rewards = np.where(generator.random((seeds, 40)) < 0.5, generator.random((seeds, 40)), 0.0)
    return Row(
        train="MiniGrid-DoorKey-5x5-v0",
        world=world,
        memory=memory,
        actions="sampled",
        paper=0.44,
        seeds=tuple(range(seeds)),
        steps=500_000,
        trained_on="envpool 1.2.5",
        played_on="minigrid 3.2.0",
        rewards=rewards,
        lengths=generator.integers(1, 100, (seeds, 40)),
        successes=rewards > 0,
    )


def make_report(*rows: Row) -> Report:
    return Report(
        rows=rows or (make_row(2), make_row(1, "MiniGrid-DoorKey-5x5-v0", "mem nu=3")),
        notes=("no test world",),
        config={"episodes": 40},
        provenance={"versions": {}},
        runs=({"run": "r0"},),
    )


@settings(max_examples=30, deadline=None)
@given(
    npst.arrays(
        np.float64, npst.array_shapes(min_dims=1, max_dims=2, max_side=9), elements=st.floats(-5, 5)
    ),
    st.integers(0, 99),
)
def test_intervals_hold_the_mean_or_nearly_and_stay_within_the_samples(
    samples: np.ndarray, seed: int
) -> None:
    low, high = bootstrap_interval(samples, resamples=400, seed=seed)
    assert samples.min() - 1e-9 <= low <= high <= samples.max() + 1e-9
    assert (low, high) == bootstrap_interval(samples, resamples=400, seed=seed)
    moved = bootstrap_interval(samples + 3, resamples=400, seed=seed)
    np.testing.assert_allclose(moved, (low + 3, high + 3), atol=1e-9)
    wide = bootstrap_interval(samples, level=0.99, resamples=400, seed=seed)
    assert wide[0] <= low + 1e-12
    assert high <= wide[1] + 1e-12


def test_one_run_has_the_interval_of_a_mean() -> None:
    samples = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(samples)
    half = 1.96 * samples.std() / np.sqrt(samples.size)
    np.testing.assert_allclose(
        (low, high), (samples.mean() - half, samples.mean() + half), atol=2e-3
    )
    assert bootstrap_interval(samples[None]) == (low, high)


def test_runs_that_differ_widen_the_interval() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 200))
    alike = bootstrap_interval(0.5 + noise)
    apart = bootstrap_interval(np.array([[0.2], [0.5], [0.8]]) + noise)
    assert apart[1] - apart[0] > 5 * (alike[1] - alike[0])
    # With three runs, all three draws are the lowest one in 1 of 27 cases: more than 2.5%.
    assert apart[0] == pytest.approx(0.2, abs=0.05)
    assert apart[1] == pytest.approx(0.8, abs=0.05)


def test_layouts_that_all_runs_share_do_not_average_out() -> None:
    """Ten runs that do the same in each layout know no more about layouts than one."""
    layouts = np.random.default_rng(0).random(100)
    one = bootstrap_interval(layouts)
    ten = bootstrap_interval(np.tile(layouts, (10, 1)))
    assert ten[1] - ten[0] == pytest.approx(one[1] - one[0], rel=0.05)


def test_coverage() -> None:
    """Five runs with effects of run and layout: the interval holds the truth about as often as
    it says (0.95; with five runs any bootstrap falls a little short)."""
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        chance = 0.5 + generator.normal(0, 0.1, (5, 1)) + generator.normal(0, 0.2, (1, 60))
        samples = generator.random((5, 60)) < chance.clip(0, 1)
        low, high = bootstrap_interval(samples, resamples=500, seed=trial)
        hits += low <= 0.5 <= high
    assert 0.88 <= hits / 200 <= 0.98


@pytest.mark.parametrize("samples", [[], [[]], [0.5, np.nan], [np.inf], np.zeros((2, 2, 2))])
def test_samples_that_have_no_interval(samples: object) -> None:
    with pytest.raises(SampleError):
        bootstrap_interval(samples)  # type: ignore[arg-type]  # wrong on purpose


def test_a_row_of_known_numbers() -> None:
    row = make_row(2)
    assert row.reward == pytest.approx(np.mean([np.mean(r) for r in row.rewards]))
    assert row.success == np.mean(row.rewards > 0)
    cells = row.cells
    low, high = row.interval
    assert cells["train → world"] == "DoorKey-5x5 → 16x16"
    assert cells["reward [95%]"] == f"{row.reward:.3f} [{low:.3f}, {high:.3f}]"
    assert cells["seeds × episodes"] == "2 × 40"
    assert cells["paper"] == "0.44"


def test_a_world_that_speaks_of_no_success(tmp_path: Path) -> None:
    row = replace(make_row(2, "CartPole-v1"), train="CartPole-v1", successes=None)
    assert row.cells["success"] == "–" and row.cells["train → world"] == "CartPole-v1 → CartPole-v1"
    report = make_report(row)
    report.write(tmp_path)
    data = json.loads((tmp_path / "transfer.json").read_text())
    assert data["rows"][0]["success"] is None
    assert [seed["successes"] for seed in data["rows"][0]["by_seed"]] == [None, None]


def test_columns_and_captions_that_say_nothing_are_left_out() -> None:
    of_paper, other = make_row(2), replace(make_row(2), paper=None)
    mute = replace(other, successes=None)
    for rows, success, paper in (
        ((of_paper, mute), True, True),
        ((other, mute), True, False),
        ((mute,), False, False),
    ):
        report = make_report(*rows)
        terminal = io.StringIO()
        report.print(Console(file=terminal, width=200))
        for text in (terminal.getvalue(), report.to_markdown()):
            head = next(line for line in text.splitlines() if "memory" in line)
            assert ("success" in head, "paper" in head) == (success, paper)
            assert ("Paper: Table 4" in text) == paper
            assert "Intervals: 95%" in text


def test_all_forms_agree(tmp_path: Path) -> None:
    report = make_report()
    (tmp_path / "transfer.json").write_text("an earlier report")
    report.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"transfer.{suffix}" for suffix in ("csv", "json", "md", "png")
    ]
    data = json.loads((tmp_path / "transfer.json").read_text())
    table = list(csv.DictReader(io.StringIO((tmp_path / "transfer.csv").read_text())))
    markdown = (tmp_path / "transfer.md").read_text().splitlines()
    terminal = io.StringIO()
    report.print(Console(file=terminal, width=200))
    for i, row in enumerate(report.rows):
        assert data["rows"][i]["reward"] == row.reward
        assert (data["rows"][i]["reward_low"], data["rows"][i]["reward_high"]) == row.interval
        assert float(table[i]["reward"]) == row.reward
        assert markdown[2 + i] == f"| {' | '.join(row.cells.values())} |"
        assert all(cell in terminal.getvalue() for cell in row.cells.values())
        for j, seed in enumerate(data["rows"][i]["by_seed"]):
            assert seed["seed"] == row.seeds[j]
            assert seed["lengths"] == row.lengths[j].tolist()
            np.testing.assert_allclose(seed["rewards"], row.rewards[j], atol=1e-6)
            assert seed["reward"] == pytest.approx(np.mean(seed["rewards"]), abs=1e-6)
            assert row.successes is not None
            assert [bool(s) for s in seed["successes"]] == row.successes[j].tolist()
    assert data["notes"] == ["no test world"]
    assert "Note: no test world" in markdown
    assert "note: no test world" in terminal.getvalue()


def test_the_picture_is_a_png_of_readable_size() -> None:
    other = make_row(1, "MiniGrid-GoToDoor-8x8-v0")
    rows = [*make_report().rows, other]
    content = transfer_figure(rows)
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert 300 < height < 1000
    assert 400 < width < 2000


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="cannot write"):
        make_report().write(tmp_path / "missing")


def test_short_names() -> None:
    assert short_name("MiniGrid-DoorKey-5x5-v0") == "DoorKey-5x5"
    assert short_name("CartPole-v1", "CartPole-v1") == "CartPole-v1"
    assert short_name("BabyAI-GoToObj-v0") == "BabyAI-GoToObj"
    assert short_name("MiniGrid-DoorKey-8x8-v0", "MiniGrid-DoorKey-5x5-v0") == "8x8"
    assert short_name("MiniGrid-Fetch-8x8-N3-v0", "MiniGrid-DoorKey-5x5-v0") == "Fetch-8x8-N3"
    assert short_name("MiniGrid-MemoryS13-v0", "MiniGrid-MemoryS7-v0") == "MemoryS13"


def test_a_narrow_terminal_hides_no_digit() -> None:
    report = make_report(make_row(2), make_row(2, "MiniGrid-DoorKey-5x5-v0"))
    text = io.StringIO()
    report.print(Console(file=text, width=80))
    assert "…" not in text.getvalue()
    for row in report.rows:
        assert row.cells["reward [95%]"] in text.getvalue()
    assert "All rows: seeds × episodes 2 × 40, steps 500,000," in text.getvalue()
