"""The pages under ``results/``, and README's table, say what the runs say."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from relagent.study.report import write_report

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/runs"))


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("study", STUDIES)
def test_the_page_is_that_of_its_runs(study: str, tmp_path: Path) -> None:
    """Made again from the result files, every table and page is the published one."""
    folder = tmp_path / study
    (folder / "runs").mkdir(parents=True)
    for path in (RESULTS / study).glob("runs/*.json"):
        shutil.copy(path, folder / "runs")
    for path in (RESULTS / study).glob("*.json"):  # measurements that a page shows too
        shutil.copy(path, folder)
    written = write_report(folder)
    texts = [path.name for path in written if path.suffix in (".md", ".csv")]
    assert "README.md" in texts
    for name in texts:
        assert (folder / name).read_text() == (RESULTS / study / name).read_text(), (
            f"make it again: python -m relagent.study report --results results/{study}"
        )
    assert {path.name for path in written} <= {p.name for p in (RESULTS / study).iterdir()}


def test_the_readme_s_table_is_that_of_the_study() -> None:
    with (RESULTS / "table4" / "table4.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["actions"] == "sampled"]
    rewards = {
        (row["train"], row["world"], row["memory"]): float(row["reward"])
        for row in rows
        if row["protocol"] == "ours"
    }
    pair = r"([\d.]+ → [\d.]+)"
    line = re.compile(
        rf"^\| (\S+) → (\S+) \| {pair} \| {pair} \| {pair} \| {pair} \|$", re.MULTILINE
    )
    found = line.findall((ROOT / "README.md").read_text())
    assert len(found) == 6
    for trained, played, _paper, *cells in found:
        for memory, cell in zip(("rel", "mem", "lstm"), cells, strict=True):
            train, test = (f"MiniGrid-{world}-v0" for world in (trained, played))
            scores = [rewards[train, world, memory] for world in (train, test)]
            assert cell == " → ".join(f"{score:.3f}" for score in scores), (trained, memory)
