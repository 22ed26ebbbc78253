from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from relagent.study.report import ReportError, write_report
from relagent.study.result_file import ResultError
from relagent.study.supervised import peak
from relagent.study.supervised.peak import PeakPoint, Peaks
from relagent.study.supervised.result import SupervisedResult, read_results
from relagent.study.supervised.tables import main_table, percent
from relagent.study.supervised.view import View, variant_title

from .synthetic import synthetic, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    transfer = {200: 0.99, 5000: 0.5}
    write(folder, synthetic("copy", "rel-rnn", T=100, updates=16_900, transfer=transfer))
    write(folder, synthetic("copy", "rel-rnn", 1, T=100, updates=12_000, accuracy=0.46))
    write(folder, synthetic("copy", "lstm", T=500, updates=30_000, accuracy=0.999_99))
    diverged = synthetic("copy", "orth-rnn", T=500, updates=823, accuracy=0.1, diverged=824)
    write(folder, replace(diverged, best={"updates": 400, "loss": 0.1, "accuracy": 0.3}))
    gru = synthetic("copy", "gru", T=7, updates=100)
    on_a_gpu = {"bytes": 5_000_000, "of": "CUDA tensors"}
    write(folder, replace(gru, peak_memory=on_a_gpu))
    points = tuple(PeakPoint("mem-rnn", T, T * T / 100, 5.0) for T in (100, 200, 400))
    peak.write(folder / peak.FILE, Peaks(points, 10, 128, {"processor": "A fine one", "cores": 2}))
    write_report(folder)
    return folder


def test_the_table_beside_the_paper_s(folder: Path) -> None:
    heading, rows = main_table(View(read_results(folder)))
    found = {row[0]: dict(zip(heading[1:], row[1:], strict=True)) for row in rows}
    assert list(found) == [f"T = {T}" for T in ("7", "100", "200", "300", "500", "1,000", "2,000")]
    assert found["T = 100"]["RelRNN"].split("<br>") == [
        "**100%**, solved at 16,900",
        "46.00%, unsolved in 12,000",
        "paper 100%",
    ]
    # Not run: blank, or the paper's number alone. Nearly all is not all.
    assert found["T = 100"]["GORU"] == ""
    assert found["T = 2,000"]["MemRNN"] == "paper out of memory"
    assert found["T = 500"]["LSTM"] == "99.99%, unsolved in 30,000<br>paper 12%"
    assert found["T = 500"]["orth-RNN"] == ("10.00% (best: 30.00%), diverged at 824<br>paper 100%")
    assert found["T = 7"]["GRU"] == "**100%**, solved at 100"
    assert found["T = 1,000"]["orth-RNN"] == "paper 80%"


def test_the_page_says_how_it_was_made(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    for part in (
        "# Copy\n",
        "Runs so far: 5",
        "python -m relagent.study copy   # trains",
        "every 100 updates, 100 fresh\nsequences, 1,000 symbols",
        "Seeds: 0 / 1.",
        "Table 5 of the appendix of Kerg et al.",
        "| T = 100 | RelRNN | 0 | 99.00% (1,000) | 50.00% (1,000) |",
        "| T = 100 | RelRNN | 0 | 16,900 | 16,900 | 10.0 | 28.2 | CPU | 480 | 1,234 |",
        "| T = 500 | LSTM | 0 | – | 30,000 | 10.0 | 50.0 | CPU | 480 | 1,234 |",
        "| T = 7 | GRU | 0 | 100 | 100 | 10.0 | 0.2 | CPU, then GPU | 5 | 1,234 |",
        "| RelRNN | 128 | adam | 0.0002 | – | tanh | 10 | 10 | sum |",
        "40.0 GB at T = 2,000; 16 GB are passed at T = 1,265.",
        "- T = 2,000: RelRNN, RelLSTM.",
        "A fine one, 2 cores, 8 GiB",
        "0.83 h of training",
        "A run *diverged at* the update whose",
        "a dot: solved; a cross: diverged.",
        "torch 2.9",
    ):
        assert part in page, part
    assert "T = 500: RelRNN, RelLSTM, expRNN." in page
    for image in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (folder / image).read_bytes().startswith(b"\x89PNG")


def test_the_page_names_commands_that_make_all_of_it(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    beside = page.split("Beside that grid, or with less than its budget:")[1].split("```")[1]
    assert beside.count("python -m relagent.tasks copy") == 2  # a second seed, an unplanned delay


@pytest.mark.usefixtures("blank_pictures")
def test_the_page_names_what_the_paper_has_beside_the_grid(tmp_path: Path) -> None:
    write(tmp_path, synthetic("copy", "mem-rnn", T=1000))
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    told = page.split("In the paper's Table 5, beside the grid, and not run:")[1].split("##")[0]
    assert told.split("\n- ")[1:3] == ["T = 500: MemRNN, SAB.", "T = 1,000: SAB."]


@pytest.mark.usefixtures("blank_pictures")
def test_the_page_names_what_was_not_run_and_what_not_to_the_end(tmp_path: Path) -> None:
    def missing(*results: SupervisedResult) -> str:
        for result in results:
            write(tmp_path, result)
        write_report(tmp_path)
        page = (tmp_path / "README.md").read_text()
        return page.split("## What is missing")[1].split("## Made with")[0]

    half = missing(synthetic("ptb", "lstm", epochs=3, accuracy=0.6))
    assert "not run:\n\n- PTB: RelRNN." in half
    assert "less than planned:\n\n- PTB: LSTM." in half
    most = missing(synthetic("ptb", "rel-rnn", epochs=100, accuracy=0.6))
    assert "RelRNN" not in most and "not run" not in most
    # A seed beside the plan stands for none of the plan.
    beside = missing(synthetic("ptb", "lstm", seed=1, epochs=100, accuracy=0.6))
    assert "less than planned:\n\n- PTB: LSTM." in beside
    # Nor do other settings.
    other = missing(synthetic("ptb", "lstm", epochs=100, hidden_size=64))
    assert "not run:\n\n- PTB: LSTM." in other
    assert "Nothing" in missing(synthetic("ptb", "lstm", epochs=100, accuracy=0.6))


def test_a_run_that_ended_before_its_first_row_of_training_is_drawn(tmp_path: Path) -> None:
    short = synthetic("copy", "lstm", T=100, accuracy=0.2, updates=30)
    nothing: dict[str, list[float]] = {name: [] for name in short.training}
    write(tmp_path, replace(short, training=nothing))
    assert tmp_path / "curves.png" in write_report(tmp_path)


def test_the_csv_holds_the_numbers(folder: Path) -> None:
    with (folder / "copy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    row = next(row for row in rows if row["memory"] == "rel-rnn" and row["seed"] == "0")
    assert (row["task"], row["solved"], row["paper"]) == ("T100", "16900", "100%")
    assert (row["transfer_T200"], row["transfer_T5000"]) == ("0.99", "0.5")
    assert next(row for row in rows if row["seed"] == "1")["solved"] == ""
    assert [row["diverged"] for row in rows if row["memory"] == "orth-rnn"] == ["824"]


def test_the_same_results_give_the_same_files(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert len(before) == 7  # one of them peak.json
    write_report(folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("blank_pictures")
def test_test_scores_of_data(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    for form in ({"group": 7}, {"permuted": True}):
        write(folder, synthetic("mnist", "rel", accuracy=0.9712, updates=2500, epochs=5, **form))
    write_report(folder)
    page = (folder / "README.md").read_text()
    assert "97.12%, epoch 5 of 5" in page
    assert "| permuted, pixel by pixel |" in page
    assert "| 7 pixels at a step |" in page
    assert "Validation after each epoch" in page
    folder = tmp_path / "ptb"
    write(folder, synthetic("ptb", "lstm", accuracy=0.68, updates=1000, epochs=4))
    write_report(folder)
    page = (folder / "README.md").read_text()
    assert "0.144 bpc, epoch 4 of 4" in page
    assert "- PTB: RelRNN." in page
    assert "diverged at" not in page
    write(folder, synthetic("ptb", "rel-rnn", updates=1000, epochs=4, diverged=1001))
    write_report(folder)
    page = (folder / "README.md").read_text()
    assert "epoch 4 of 4, diverged at 1,001" in page
    assert "the score is of the best epoch before." in page
    assert "less than planned:\n\n- PTB: LSTM." in page


def test_results_of_two_studies_are_no_report(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, synthetic("denoise", "rel", T=100))
    write(tmp_path, synthetic("copy", "rel", T=200))
    with pytest.raises(ReportError, match="results of copy and denoise in one folder"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"study"', "null", ""])
def test_a_damaged_result_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path, synthetic("copy", "rel", T=100))
    (tmp_path / "runs" / "T100-z.json").write_text(content)
    with pytest.raises(ResultError, match=r"T100-z\.json is no result of a task"):
        write_report(tmp_path)


def test_words() -> None:
    shown = [percent(share) for share in (1, 0.99999, 0.125, 0)]
    assert shown == ["100%", "99.99%", "12.50%", "0.00%"]
    assert [variant_title(name) for name in ("T2000", "group1", "permuted-group7", "")] == [
        "T = 2,000",
        "pixel by pixel",
        "permuted, 7 pixels at a step",
        "PTB",
    ]
