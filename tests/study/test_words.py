"""What the pages say of how their results were made."""

from __future__ import annotations

from types import SimpleNamespace

from relagent.study.words import commits, versions


def session(commit: str, torch: str) -> dict[str, object]:
    return {
        "git": {"commit": commit, "dirty": False},
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
