"""The largest sum over places: kernel and definition against a loop, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.memories import kernels
from relagent.rl.lookup import lookup_max


@given(
    n_tables=st.integers(1, 2),
    U=st.integers(1, 5),
    P=st.integers(1, 7),
    C=st.integers(1, 9),
    ties=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_the_first_of_the_largest_sums_wins(
    n_tables: int, U: int, P: int, C: int, ties: bool, dtype: torch.dtype, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    tables = [torch.randn(4, C, generator=draws, dtype=dtype) for _ in range(n_tables)]
    if ties:
        tables = [table.round() for table in tables]
    rows = [torch.randint(0, 4, (U, P), generator=draws) for _ in range(n_tables)]
    expected = torch.empty(U, C, dtype=dtype)
    gradients = [torch.zeros_like(table) for table in tables]
    for u in range(U):
        for k in range(C):
            sums = [
                float(sum(table[row[u, p], k] for table, row in zip(tables, rows, strict=True)))
                for p in range(P)
            ]
            best = sums.index(max(sums))
            expected[u, k] = sums[best]
            for gradient, row in zip(gradients, rows, strict=True):
                gradient[row[u, best], k] += u + 1

    def check() -> None:
        leaves = [table.clone().requires_grad_() for table in tables]
        found = lookup_max(leaves, rows)
        assert torch.equal(found, expected)
        found.backward(torch.arange(1, U + 1, dtype=dtype).unsqueeze(1).expand(U, C))
        for leaf, gradient in zip(leaves, gradients, strict=True):
            assert leaf.grad is not None and torch.equal(leaf.grad, gradient)

    check()
    with kernels.disable():
        check()


@pytest.mark.parametrize("use_kernel", [True, False])
def test_what_is_no_number_is_not_hidden(use_kernel: bool) -> None:
    """Weights that are no numbers any more must show, not be hidden by the search."""
    table, rows = torch.full((2, 3), torch.nan), torch.zeros(1, 4, dtype=torch.int64)
    if use_kernel:
        assert lookup_max([table], [rows]).isnan().all()
    else:
        with kernels.disable():
            assert lookup_max([table], [rows]).isnan().all()


def test_function_transforms_see_through_it() -> None:
    table, rows = torch.randn(5, 3), torch.randint(5, (2, 4))
    found = torch.func.grad(lambda leaf: lookup_max([leaf], [rows]).sum())(table)
    leaf = table.clone().requires_grad_()
    lookup_max([leaf], [rows]).sum().backward()
    assert leaf.grad is not None and torch.equal(found, leaf.grad)
