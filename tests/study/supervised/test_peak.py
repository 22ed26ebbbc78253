from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relagent.analysis.peak import PeakError
from relagent.study.result_file import ResultError
from relagent.study.supervised.peak import PeakPoint, Peaks, measure, read, write

DELAYS = (100, 200, 400, 800)


def peaks(definition: Any, memory: str = "mem-rnn") -> Peaks:
    points = tuple(PeakPoint(memory, T, definition(T), 1.0) for T in DELAYS)
    return Peaks(points, 10, 128, {"processor": "A fine one", "cores": 2})


def test_the_fit_finds_the_parabola_and_where_it_crosses() -> None:
    found = peaks(lambda T: 7 + 0.5 * T + 0.01 * T * T)
    assert found.fit("mem-rnn") == pytest.approx((7, 0.5, 0.01))
    T = found.crossing("mem-rnn", 16_000.0)
    assert T is not None
    assert pytest.approx(16_000) == 7 + 0.5 * T + 0.01 * T * T


def test_what_shrinks_or_is_unknown_never_crosses() -> None:
    assert peaks(lambda T: 7 - 0.01 * T * T).crossing("mem-rnn") is None
    assert peaks(lambda T: T).crossing("rel") is None
    few = Peaks(peaks(lambda T: T).points[:2], 10, 128, {})
    assert few.fit("mem-rnn") is None


def test_measurements_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "peak.json"
    assert read(path) is None
    found = peaks(lambda T: T)
    write(path, found)
    assert read(path) == found
    path.write_text('{"points": 3}')
    with pytest.raises(ResultError, match="holds no measurements"):
        read(path)


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(config: Any, *, definition: bool) -> float:
        return float(config.T * (10 if definition else 1))

    monkeypatch.setattr("relagent.analysis.peak.peak_megabytes", fake)
    *_, (last, found) = measure(["mem-rnn", "rel-rnn"], [5, 6])
    assert last == ("rel-rnn", 6, 60.0, 6.0)
    assert found.points[1] == ("mem-rnn", 6, 60.0, 6.0)
    assert found.memories() == ["mem-rnn", "rel-rnn"]
    assert (found.batch_size, found.hidden_size) == (10, 128)
    # What is measured again is replaced, all else stays.
    *_, (_, more) = measure(["lstm", "rel-rnn"], [6], found)
    assert [point[:2] for point in more.points] == [
        ("lstm", 6), ("mem-rnn", 5), ("mem-rnn", 6), ("rel-rnn", 5), ("rel-rnn", 6),
    ]  # fmt: skip
    elsewhere = replace(found, machine={"processor": "another"})
    with pytest.raises(PeakError, match="choose another --results"):
        next(measure(["lstm"], [6], elsewhere))


def test_measurements_of_an_unknown_memory(tmp_path: Path) -> None:
    path = tmp_path / "peak.json"
    write(path, Peaks((PeakPoint("zz", 5, 1.0, 1.0),), 10, 128, {}))
    with pytest.raises(ResultError, match="no memory zz"):
        read(path)
