"""What the CPU kernels are built from: functions of one number, and the product of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.memories.kernels.native import jit
from relagent.memories.kernels.product import PANEL, add_product
from relagent.memories.kernels.transcendental import exp, exp_within, sigmoid, tanh


def _mapped(function: Any) -> Any:
    @jit
    def loop(x: Any, out: Any) -> None:
        for j in range(x.shape[0]):
            out[j] = function(x[j])

    return loop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("function", "exact"),
    [(exp, np.exp), (tanh, np.tanh), (sigmoid, lambda x: 1 / (1 + np.exp(-x)))],
    ids=["exp", "tanh", "sigmoid"],
)
def test_transcendental_functions_are_accurate(dtype: Any, function: Any, exact: Any) -> None:
    """Within 3 units in the last place, over the whole range, denormals included."""
    small = np.logspace(-45 if dtype is np.float32 else -320, 0, 20_001)
    x = np.concatenate(
        [np.linspace(-110, 110, 200_001), np.linspace(-800, 800, 50_001), small, -small]
    ).astype(dtype)
    found = np.empty_like(x)
    loop = _mapped(function)
    loop(x, found)
    with np.errstate(over="ignore", under="ignore"):
        wide = exact(x.astype(np.longdouble))
        expected = wide.astype(dtype)
        finite = np.isfinite(expected)
        ulps = np.abs(found[finite] - wide[finite]) / np.spacing(np.abs(expected[finite]))
    assert ulps.max() <= 3
    assert np.array_equal(found[~finite], expected[~finite])

    special = np.array([np.inf, -np.inf, np.nan, 0.0], dtype)
    found = np.empty_like(special)
    loop(special, found)
    with np.errstate(over="ignore"):
        assert np.array_equal(found, exact(special), equal_nan=True)


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 87), (np.float64, 708)])
def test_the_exponential_within_its_range_is_accurate(dtype: Any, limit: int) -> None:
    x = np.linspace(-limit, limit, 200_001).astype(dtype)
    found = np.empty_like(x)
    _mapped(exp_within)(x, found)
    exact = np.exp(x.astype(np.longdouble))
    assert (np.abs(found - exact) / np.spacing(exact.astype(dtype))).max() <= 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=st.integers(1, 11), depth=st.integers(0, 20), panels=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_a_products_rows_do_not_depend_on_each_other(
    dtype: Any, rows: int, depth: int, panels: int
) -> None:
    random = np.random.default_rng(rows * 1000 + depth * 10 + panels)
    a = random.standard_normal((rows, depth)).astype(dtype)
    w = random.standard_normal((depth, panels * PANEL)).astype(dtype)
    out = random.standard_normal((rows, panels * PANEL)).astype(dtype)
    laid_out = np.ascontiguousarray(w.reshape(depth, panels, PANEL).transpose(1, 0, 2))
    expected = out.astype(np.float64) + a.astype(np.float64) @ w
    alone = out.copy()
    width = out.shape[1]
    add_product(out, 0, width, a, 0, depth, laid_out, rows)
    for row in range(rows):
        add_product(alone, row * width, width, a, row * depth, depth, laid_out, 1)
    assert np.array_equal(out, alone)
    assert np.abs(out - expected).max() <= 100 * np.finfo(dtype).eps
