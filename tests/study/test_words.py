"""What the pages say of how their results were made."""

from __future__ import annotations

from types import SimpleNamespace

from relagent.study.words import backends, commits, listed, untold_sessions, versions


def session(commit: str, torch: str) -> dict[str, object]:
    return {
        "git": {"commit": commit, "dirty": False},
        "backend": "envpool 1",
        "versions": {"torch": torch, "envpool": None},
    }


def test_a_run_that_was_resumed_is_of_all_its_sessions() -> None:
    whole = SimpleNamespace(provenance={"training": session("a", "2.1")})  # of an older result
    resumed = SimpleNamespace(
        provenance={"training": session("b", "2.1"), "resumed": [session("c", "2.2")]}
    )
    assert commits([whole, resumed]) == "`a` / `b` / `c`"
    assert versions([whole, resumed], "training") == "torch 2.1 / 2.2"
    assert commits([SimpleNamespace(provenance={})]) == "unknown"
    assert backends([whole, resumed]) == "envpool 1"
    assert untold_sessions([whole, resumed]) == ""


def test_a_page_says_where_only_a_first_session_is_known() -> None:
    older = SimpleNamespace(provenance={"training": session("a", "2.1"), "sessions": 2})
    assert "those of the first part" in untold_sessions([older])


def test_numbers_are_listed_by_size() -> None:
    values = ["1,000", "200", "null", "0.5", "200"]
    assert listed(values) == "0.5 / 200 / 1,000 / null"
