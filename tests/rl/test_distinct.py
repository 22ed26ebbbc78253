"""Distinct rows are found exactly, whatever the hash does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relagent.rl import distinct
from relagent.rl.distinct import RowMemo, RowNumbers, distinct_numbers, distinct_rows


@st.composite
def tables(draw: st.DrawFn) -> Tensor:
    """Integers [N, K] of few values, so that rows repeat, or of values far apart."""
    dtype = draw(st.sampled_from([torch.uint8, torch.int32, torch.int64]))
    low, high = draw(st.sampled_from([(0, 1), (0, 2), (0, 255)]))
    if dtype == torch.int64 and draw(st.booleans()):
        low, high = -(2**62), 2**62
    n, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    rows = st.lists(st.integers(low, high), min_size=k, max_size=k)
    return torch.tensor(draw(st.lists(rows, min_size=n, max_size=n)), dtype=dtype)


def assert_exact(rows: Tensor) -> None:
    first, group = distinct_rows(rows)
    assert len(first) == len({tuple(row) for row in rows.tolist()})
    assert group.shape == (len(rows),)
    assert torch.equal(rows[first][group], rows)


@given(tables())
@settings(max_examples=150, deadline=None)
def test_every_row_is_found_again(rows: Tensor) -> None:
    assert_exact(rows)


@given(tables())
@settings(max_examples=150, deadline=None)
def test_collisions_change_nothing(rows: Tensor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "_multipliers", lambda k, _: torch.zeros(k, dtype=torch.int64))
        assert_exact(rows)


def test_the_hash_alone_tells_single_cells_apart() -> None:
    """Grid views that differ in one code have different hashes: the exact pass is for accidents."""
    rows = torch.zeros(147 * 10, 147, dtype=torch.uint8)
    for column in range(147):
        for code in range(10):
            rows[column * 10 + code, column] = code + 1
    with pytest.MonkeyPatch.context() as patch:
        exact = torch.unique
        patch.setattr(torch, "unique", lambda *a, **k: exact(*a, **k) if "dim" not in k else None)
        assert_exact(rows)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(10, 12))
def test_distinct_numbers_are_torchs_unique_ones(numbers: list[int], below: int) -> None:
    table = torch.tensor(numbers).view(-1, 1).expand(-1, 2)
    for found, right in zip(
        distinct_numbers(table, below), torch.unique(table, return_inverse=True), strict=True
    ):
        assert torch.equal(found, right)


BATCHES = st.lists(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1))


@given(BATCHES)
def test_rows_are_numbered_as_they_come(batches: list[list[list[int]]]) -> None:
    numbers, seen = RowNumbers(), []
    for batch in batches:
        rows = torch.tensor(batch, dtype=torch.uint8)
        found, new = numbers.number(rows[:, :1], rows[:, 1:].long())
        seen += [batch[n] for n in new]
        assert [seen[number] for number in found.tolist()] == batch
    assert len({tuple(row) for row in seen}) == len(seen)


@given(BATCHES)
def test_a_row_is_computed_once_over_all_batches(batches: list[list[list[int]]]) -> None:
    memo = RowMemo()
    computed: list[tuple[int, ...]] = []
    for batch in batches:
        rows = torch.tensor(batch, dtype=torch.uint8)

        def compute(new: Tensor) -> Tensor:
            computed.extend(map(tuple, new.tolist()))
            return new.double() * 10

        assert torch.equal(memo.get(rows, compute), rows.double() * 10)
    assert sorted(computed) == sorted({tuple(row) for batch in batches for row in batch})
