"""The pages under ``results/`` say what the runs beside them say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from relagent.study.report import write_report

RESULTS = Path(__file__).resolve().parents[2] / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/runs"))


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
