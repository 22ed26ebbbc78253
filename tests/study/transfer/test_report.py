from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relagent.envs import Pair
from relagent.runs.config import to_json
from relagent.study.report import ReportError, write_report
from relagent.study.result_file import ResultError
from relagent.study.task import task_from_json, task_to_json
from relagent.study.transfer.page import page
from relagent.study.transfer.protocol import load_protocol
from relagent.study.transfer.results import RunResult, WorldResult, read_results
from relagent.study.transfer.tables import estimate, improvement_rows, table_rows
from relagent.study.transfer.task import TransferTask, pair_named, task_words
from relagent.study.transfer.view import View, size_of

# Mean rewards in the (training, test) world, by pair, memory and seed.
SCORES: Mapping[str, Mapping[str, list[tuple[float, float]]]] = {
    "doorkey": {
        "rel": [(0.96, 0.50), (0.94, 0.40), (0.95, 0.60)],
        "mem": [(0.95, 0.30), (0.93, 0.45)],
    },
    "gotodoor": {
        "rel": [(0.90, 0.20), (0.80, 0.10)],
        "mem": [(0.90, 0.10), (0.70, 0.00)],
        "lstm": [(0.85, 0.15)],
    },
}


def synthetic(
    protocol: str, pair: Pair, memory: str, seed: int, on: tuple[float, float]
) -> RunResult:
    """A result that scores what it is told to."""
    task = TransferTask(load_protocol(protocol), pair, memory, seed)
    worlds = []
    for world in pair.ladder:
        mean = {pair.train_id: on[0], pair.test_id: on[1]}.get(world, 0.5)
        for actions in ("sampled", "greedy"):
            score = mean if actions == "sampled" else mean / 2
            worlds.append(
                WorldResult(world, actions, score, (0.0, 1.0), 1.0, 10.0, np.full(4, score))
            )
    return RunResult(
        protocol=protocol,
        pair=pair.name,
        memory=memory,
        seed=seed,
        steps=5_000_000,
        config=to_json(task.config),
        evaluation={"episodes": 4, "precision": "float64"},
        worlds=tuple(worlds),
        curve={"steps": [0.0, 5e6], "reward": [0.0, on[0]], "success": [0.0, 1.0]},
        seconds={"training": 1000.0, "playing": 360.0},
        command=("python",),
        provenance={
            "training": {"versions": {"torch": "2.9"}, "git": {"commit": "0" * 40, "dirty": False}},
            "playing": {"versions": {"minigrid": "3.0.0"}},
            "machine": {"processor": "A fine one", "cores": 2, "memory_gib": 8.0, "gpu": None},
        },
        checkpoint="checkpoint",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for name, memories in SCORES.items():
        for memory, runs in memories.items():
            for seed, on in enumerate(runs):
                write(folder, "ours", name, memory, seed, on)
    write(folder, "paper", "doorkey", "rel", 0, (0.5, 0.45))
    write_report(folder)
    return folder


def write(
    folder: Path, protocol: str, pair: str, memory: str, seed: int, on: tuple[float, float]
) -> None:
    result = synthetic(protocol, pair_named(pair), memory, seed, on)
    result.write(folder / "runs" / f"{result.name}.json")


@pytest.fixture(scope="module")
def view(folder: Path) -> View:
    return View(read_results(folder))


def test_the_table_beside_the_paper_s_numbers(view: View) -> None:
    heading, rows = table_rows(view, "ours")
    assert heading == ["world", "Mem, paper", "Rel, paper", "RelLSTM", "MemLSTM", "LSTM"]
    found = {row[0]: row[1:] for row in rows}
    assert list(found) == [
        "GoToDoor-5x5 (trained)",
        "→ GoToDoor-8x8",
        "DoorKey-5x5 (trained)",
        "→ DoorKey-16x16",
    ]
    mem, rel, ours, full, plain = found["→ DoorKey-16x16"]
    assert (mem, rel, plain) == ("0.31", "0.44", "–")
    # Above the paper's 0.44: bold. Below: not.
    assert re.fullmatch(r"\*\*0\.500\*\* \[0\.\d{3}, 0\.\d{3}\]<br>0\.50 · 0\.40 · 0\.60", ours)
    assert full.startswith("0.375 [0.300, 0.450]<br>0.30 · 0.45")
    # One seed has no interval.
    assert found["→ GoToDoor-8x8"][4] == "0.150 (seed 0)"
    assert table_rows(view, "ours", "greedy")[1][3][3].startswith("0.250 ")


@pytest.mark.parametrize(("score", "bold"), [(0.4449, False), (0.4451, True), (0.4351, False)])
def test_above_the_papers_number_is_above_all_that_it_may_stand_for(
    tmp_path: Path, score: float, bold: bool
) -> None:
    write(tmp_path, "ours", "doorkey", "rel", 0, (0.9, score))  # the paper has 0.44
    _, rows = table_rows(View(read_results(tmp_path)), "ours")
    assert rows[1][0] == "→ DoorKey-16x16"
    assert rows[1][3].startswith("**") is bold


@pytest.mark.usefixtures("blank_pictures")
def test_without_rel_there_is_nothing_that_it_could_be_better_than(tmp_path: Path) -> None:
    for memory in ("mem", "lstm"):
        write(tmp_path, "ours", "doorkey", memory, 0, (0.9, 0.5))
    assert improvement_rows(View(read_results(tmp_path)), "ours")[0] == ["pair"]
    write_report(tmp_path)
    assert "Probability that" not in (tmp_path / "README.md").read_text()


def test_the_interval_is_the_bootstrap_of_the_mean_over_seeds(view: View) -> None:
    cell = view.cell("ours", pair_named("doorkey"), "rel", "MiniGrid-DoorKey-16x16-v0")
    assert cell is not None
    # Of 27 equally likely resamples of (0.4, 0.5, 0.6), one each is all 0.4 and all 0.6 (3.7%).
    assert cell.mean == pytest.approx((0.5, 0.4, 0.6))


def test_aggregates_leave_out_who_lacks_a_pair(view: View) -> None:
    # rel and mem have two seeds with both pairs, the LSTM has gotodoor alone.
    assert view.compared("ours")[0] == ("rel", "mem")
    found = view.iqm("ours", "train")
    assert {memory: seeds for memory, (_, seeds) in found.items()} == {"rel": 2, "mem": 2}
    assert found["rel"][0].value == pytest.approx((0.90 + 0.94) / 2)  # of 0.80 0.90 0.94 0.96
    assert view.iqm("paper", "test")["rel"][0].value == pytest.approx(0.45)


def test_the_probability_that_rel_beats_mem(view: View) -> None:
    doorkey, gotodoor = pair_named("doorkey"), pair_named("gotodoor")
    # rel 0.5 0.4 0.6 against mem 0.3 0.45: 5 of 6 pairs of runs.
    one = view.improvement("ours", "mem", "test", doorkey)
    assert one is not None
    assert (one[0].value, one[1:]) == (pytest.approx(5 / 6), (3, 2))
    # rel 0.2 0.1 against mem 0.1 0.0: 3.5 of 4.
    two = view.improvement("ours", "mem", "test", gotodoor)
    assert two is not None
    assert two[0].value == pytest.approx(3.5 / 4)
    # Both: the mean of the two, each of all runs that there are.
    both = view.improvement("ours", "mem", "test")
    assert both is not None
    assert (both[0].value, both[1:]) == (pytest.approx((5 / 6 + 3.5 / 4) / 2), (2, 2))
    assert view.improvement("ours", "lstm", "test", doorkey) is None


def test_what_is_missing_is_named(view: View, folder: Path) -> None:
    missing = view.missing()
    assert missing["ours rel"]["doorkey"] == [3, 4]
    assert missing["ours lstm"]["gotodoor"] == [1, 2, 3, 4]
    assert missing["paper rel"]["doorkey"] == [1, 2]
    assert missing["paper mem"]["fetch"] == [0, 1, 2]
    page = (folder / "README.md").read_text()
    assert "- *paper*, RelLSTM, 17 runs (seeds): " in page
    assert "doorkey: 1, 2." in page


@pytest.mark.usefixtures("blank_pictures")
def test_runs_of_other_settings_are_no_seeds(tmp_path: Path) -> None:
    pair = pair_named("doorkey")

    def trained(seed: int, **settings: Any) -> None:
        result = synthetic("ours", pair, "rel", seed, (0.9, 0.5))
        result = replace(result, config={**result.config, **settings})
        result.write(tmp_path / "runs" / f"{result.name}.json")

    trained(0)
    trained(1, steps=8192)
    with pytest.raises(ReportError, match=r"s0 was trained with steps 5000000, .*s1 with 8192"):
        write_report(tmp_path)
    for gone_from in range(2):
        trained(gone_from)
        trained(1 - gone_from, gone_since=1)
        with pytest.raises(ReportError, match=r"gone_since (1|not set), .*s1 with (1|not set)"):
            write_report(tmp_path)
    trained(1, steps=8192)
    trained(0, steps=8192, threads=2)  # alike but for the machine
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "relagent.study table4 --steps 8192 --episodes 4" in page
    assert View(read_results(tmp_path)).missing()["ours rel"]["doorkey"] == [0, 1, 2, 3, 4]


def test_the_csv_holds_the_numbers(folder: Path) -> None:
    with (folder / "table4.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Worlds times kinds of actions times memories.
    assert len(rows) == 4 * 2 * 2 + 3 * 2 * 3 + 4 * 2
    chosen = [
        row
        for row in rows
        if (row["protocol"], row["world"], row["memory"], row["actions"])
        == ("ours", "MiniGrid-DoorKey-5x5-v0", "rel", "sampled")
    ]
    (row,) = chosen
    assert float(row["reward"]) == 0.95
    assert row["reward_by_seed"] == "0.96000 0.94000 0.95000"
    assert (row["seeds"], row["paper_rel"], row["steps"]) == ("0 1 2", "0.93", "5000000")


def test_the_page_says_how_it_was_made(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for part in (
        "Runs so far: 11",
        "4 episodes",
        "the attention memory was emptied at *every* step",
        "| `learning_rate` | 0.0005 |",
        "| `learning_rate` | 0.001 |",
        "A fine one, 2 cores, 8 GiB",
        "3.1 h of training, 1.1 h of playing",
        "torch 2.9, minigrid 3.0.0",
        "5,000,000",
        "| ours | RelLSTM | 5,000 |",
    ):
        assert part in text, part
    for image in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (folder / image).read_bytes().startswith(b"\x89PNG")


def test_agents_that_are_not_told_their_goal_are_held_against_guessing(
    folder: Path, tmp_path: Path
) -> None:
    heading = "What can be solved without the mission"
    assert heading not in (folder / "README.md").read_text()  # ours is told, DoorKey has one goal
    write(tmp_path, "paper", "gotodoor", "rel", 0, (0.24, 0.23))
    page_of_paper = page(View(read_results(tmp_path)))
    assert heading in page_of_paper
    assert "| GoToDoor-8x8 | 0.25 | 0.25 | 0.11 | 0.15 |" in page_of_paper


def test_the_same_results_give_the_same_files(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert len(before) == 11
    write_report(folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_result_of_a_real_run_is_reported(done: TransferTask) -> None:
    names = {path.name for path in write_report(done.results)}
    assert "curves-tiny.png" in names
    assert "GoToObject-6x6-N2 (trained)" in (done.results / "table4.md").read_text()


@pytest.mark.usefixtures("blank_pictures")
def test_without_a_seed_that_ran_all_pairs_there_are_no_aggregates(tmp_path: Path) -> None:
    for pair, seed in (("doorkey", 0), ("memory", 1)):
        write(tmp_path, "ours", pair, "rel", seed, (0.9, 0.5))
    written = write_report(tmp_path)
    assert tmp_path / "profiles.png" not in written
    assert "No seed has run all pairs" in (tmp_path / "README.md").read_text()


@pytest.mark.usefixtures("blank_pictures")
def test_a_protocol_of_ones_own_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "quick.json"
    path.write_text(json.dumps({**load_protocol("ours").to_json(), "seeds": 1}))
    for steps, said in ((None, ""), (8192, "--steps 8192 ")):
        task = TransferTask(load_protocol(str(path)), pair_named("memory"), "rel", 0, steps=steps)
        back = task_from_json(json.loads(json.dumps(task_to_json(task))))
        assert isinstance(back, TransferTask)
        words = task_words(back)
        assert words[words.index("--protocol") + 1] == "quick.json"
        result = synthetic("ours", task.pair, "rel", 0, (0.9, 0.5))
        config = {**result.config, "steps": task.config.steps}
        result = replace(result, protocol="quick", command=tuple(words), config=config)
        result.write(tmp_path / "runs" / f"{result.name}.json")
        write_report(tmp_path)
        page = (tmp_path / "README.md").read_text()
        assert f"table4 --protocol quick.json {said}--episodes 4" in page


def test_one_run_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "ours", "doorkey", "rel", 0, (0.9, 0.5))
    (path,) = (tmp_path / "runs").glob("*.json")
    shutil.copy(path, path.with_name("copy.json"))
    with pytest.raises(ResultError, match=r"copy\.json and .* are results of one run"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluation", {"episodes": "200", "precision": "float32"}),
        ("protocol", "quick"),
        ("provenance", {"machine": 3}),
    ],
)
def test_a_field_of_another_kind_is_told(tmp_path: Path, name: str, value: Any) -> None:
    write(tmp_path, "ours", "doorkey", "rel", 0, (0.9, 0.5))
    (path,) = (tmp_path / "runs").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ResultError, match="is no result of a task"):
        write_report(tmp_path)


def test_agents_and_sequence_models_are_two_studies(tmp_path: Path) -> None:
    write(tmp_path, "ours", "doorkey", "rel", 0, (0.9, 0.5))
    (tmp_path / "runs" / "T100-rel-s0.json").write_text('{"format": 2, "study": "copy"}')
    with pytest.raises(ReportError, match="results of agents and of sequence models"):
        write_report(tmp_path)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="make some with python -m"):
        write_report(tmp_path)


def test_sizes_are_read_off_the_ids() -> None:
    found = [size_of(world) for name in ("memory", "fetch") for world in pair_named(name).ladder]
    assert found == [
        *("S7", "S9", "S11", "S13", "S13Random", "S17Random"),
        *("5x5-N2", "6x6-N2", "8x8-N3"),
    ]


def test_numbers_as_texts(view: View) -> None:
    cell = view.cell("ours", pair_named("doorkey"), "rel", "MiniGrid-DoorKey-16x16-v0")
    assert cell is not None
    assert estimate(cell.mean, True) == "0.500 [0.400, 0.600]"
    assert estimate(cell.mean, False, 2) == "0.50"
