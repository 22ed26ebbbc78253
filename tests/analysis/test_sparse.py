"""Section A.4: paths through sparse attention, dependency depth and Theorem 2."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relagent.analysis import decay, sparse, uniform
from relagent.analysis.gradients import AnalysisInputError, jacobians
from relagent.memories import RelLSTM, RelRNN


@st.composite
def patterns(draw: st.DrawFn, steps: int = 9) -> list[list[int]]:
    """Any attended sets: at least one state, none from the future."""
    T_end = draw(st.integers(2, steps))
    sets = [draw(st.sets(st.integers(1, T), min_size=1, max_size=4)) for T in range(1, T_end + 1)]
    return [[], *map(sorted, sets)]


@settings(max_examples=50, deadline=None)
@given(patterns())
def test_chi_equals_the_sum_over_index_sets(pattern: list[list[int]]) -> None:
    """Equations 279-280, literally."""

    def edge(reader: int, read: int, direct: bool) -> Fraction:
        return Fraction(int(read in pattern[reader]), len(pattern[reader])) + int(direct)

    t, k = 1, len(pattern) - 2
    ours = sparse.chi(pattern, t, k)
    assert ours[0] == edge(t + k, t, k == 0)
    for s in range(1, k + 1):
        brute = sum(
            (
                edge(t + i_s[0], t, i_s[0] == 0)
                * prod(
                    edge(t + b, t + a + 1, b - a == 1)
                    for a, b in zip(i_s, (*i_s[1:], k), strict=True)
                )
                for i_s in combinations(range(k), s)
            ),
            start=Fraction(0),
        )
        assert ours[s] == brute


@settings(max_examples=50, deadline=None)
@given(patterns(), st.fractions(-1, 1, max_denominator=9))
def test_path_polynomial_is_that_of_chi(pattern: list[list[int]], eigenvalue: Fraction) -> None:
    for t in range(1, len(pattern)):
        for k, value in enumerate(sparse.path_polynomials(pattern, t, eigenvalue)):
            coefficients = sparse.chi(pattern, t, k)
            assert value == sum(c * eigenvalue**s for s, c in enumerate(coefficients))


@settings(max_examples=50, deadline=None)
@given(patterns())
def test_depth_is_the_lowest_power_of_v(pattern: list[list[int]]) -> None:
    matrix = sparse.depth_matrix(pattern)
    for t in range(1, len(pattern)):
        depths = sparse.dependency_depths(pattern, t)
        assert matrix[t - 1 :, t - 1].tolist() == depths
        assert (matrix[: t - 1, t - 1] == -1).all()
        for k, depth in enumerate(depths):
            coefficients = sparse.chi(pattern, t, k)
            assert depth == next(s for s, c in enumerate(coefficients) if c > 0)


@settings(max_examples=100, deadline=None)
@given(patterns(steps=20), st.fractions(0, 1, max_denominator=9).filter(bool))
def test_theorem_2_with_its_constants(pattern: list[list[int]], eigenvalue: Fraction) -> None:
    """p_T(λ) ≥ λ^d / κ^(d+1), exactly, for any attention and any positive λ."""
    kappa = max(map(len, pattern))
    for t in range(1, len(pattern)):
        for value, depth in zip(
            sparse.path_polynomials(pattern, t, eigenvalue),
            sparse.dependency_depths(pattern, t),
            strict=True,
        ):
            assert value >= sparse.lower_bound(eigenvalue, kappa, depth)


@pytest.mark.parametrize("kappa", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("depth", range(7))
def test_theorem_2_on_chains(kappa: int, depth: int) -> None:
    """κ ≤ 16, d ≤ 6: the chain has this κ and depth, and the bound holds at every late step."""
    eigenvalue = Fraction(1, 2)
    pattern, t = sparse.chain_pattern(kappa, depth, steps=90)
    assert {len(attended) for attended in pattern[kappa:]} == {kappa}
    late = t + (depth + 1) * 4 + depth + 5
    assert set(sparse.dependency_depths(pattern, t)[late - t :]) == {depth}
    values = sparse.path_polynomials(pattern, t, eigenvalue)[late - t :]
    assert min(values) >= sparse.lower_bound(eigenvalue, kappa, depth)


@pytest.mark.parametrize("depth", range(7))
def test_the_rate_is_one_power_of_kappa_below_the_printed_one(depth: int) -> None:
    """Printed: Ω(1/κ^d). With d factors V the rate on chains is 1/κ^(d+1): p κ^d tends to 0."""
    kappas = [2**i for i in range(4, 9)]
    values = []
    for kappa in kappas:
        pattern, t = sparse.chain_pattern(kappa, depth, steps=kappa + 400, gap=40)
        values.append(float(sparse.path_polynomials(pattern, t, 0.5)[-1]))
    slope = np.polyfit(np.log(kappas), np.log(values), 1)[0]
    assert slope == pytest.approx(-(depth + 1), abs=0.05)
    scaled = [value * kappa**depth for value, kappa in zip(values, kappas, strict=True)]
    assert scaled[-1] < scaled[0] / 10


def test_norm_of_a_real_network_is_the_polynomial_of_its_eigenvalues() -> None:
    """A RelRNN with v_a = 0, φ = identity and a normal V (equation 284), to 10 digits."""
    torch.manual_seed(0)
    eigenvalues = [0.8, -0.5, 0.3 + 0.4j]
    memory = RelRNN(3, 4, nu=2, rho=2).double()
    memory.cell.nonlinearity = nn.Identity()
    nn.init.zeros_(memory.attention.energy_weight)
    V = decay.normal_matrix(eigenvalues, np.random.default_rng(0))
    memory.cell.recurrent_weight.data.copy_(torch.from_numpy(V))
    x = torch.randn(25, 1, 3).double()
    pattern = sparse.attention_pattern(memory.trace(x, memory.initial_state(1))[2])
    measured = jacobians(memory, x)[:, 0]
    depths = sparse.depth_matrix(pattern)
    for t in range(1, 26):
        squares = [
            abs(complex(sparse.path_polynomials(pattern, t, complex(z))[-1])) ** 2
            for z in (*eigenvalues, eigenvalues[2].conjugate())
        ]
        norm = float(measured[t - 1].norm())
        assert norm == pytest.approx(sum(squares) ** 0.5, rel=1e-10)
        assert norm >= sparse.lower_bound(0.8, 4, int(depths[-1, t - 1]))


def test_depths_of_relevancy_screening() -> None:
    """What is remembered is at depth 0, what lies behind it deeper; the buffer alone is deepest."""
    torch.manual_seed(0)
    x = torch.randn(60, 2, 3)
    deepest = []
    for rho in (0, 5):
        memory = RelLSTM(3, 4, nu=3, rho=rho)
        look = memory.trace(x, memory.initial_state(2))[2]
        pattern = sparse.attention_pattern(look, row=1)
        depths = sparse.depth_matrix(pattern)
        for T, attended in enumerate(pattern):
            assert all(depths[T - 1, t - 1] == 0 for t in attended)
        deepest.append(depths[-1].max())
    # With the last ν states alone, each hop goes back ν - 1 states and one recurrence: ν in all.
    assert deepest[0] == (60 - 1) // 3
    assert deepest[1] < deepest[0]


def test_full_attention_has_depth_0() -> None:
    pattern = [list(range(1, T + 1)) for T in range(20)]
    depths = sparse.depth_matrix(pattern)
    assert set(depths[np.tril_indices(19)]) == {0}
    assert sparse.chi(pattern, 3, 7) == [uniform.chi(3, 7, s) for s in range(8)]


def test_a_pattern_is_all_that_is_remembered() -> None:
    memory = RelLSTM(3, 4, nu=3, rho=2)
    look = memory.trace(torch.randn(12, 1, 3), memory.initial_state(1))[2]
    pattern = sparse.attention_pattern(look)
    assert [len(attended) for attended in pattern] == [0, 1, 2, 3, 4, *[5] * 8]
    assert all({T, T - 1, T - 2} <= set(pattern[T]) for T in range(3, 13))


def test_wrong_requests_are_refused() -> None:
    memory = RelLSTM(3, 4, nu=3, rho=2)
    used = memory.unroll(torch.randn(4, 1, 3), memory.initial_state(1))[1]
    with pytest.raises(AnalysisInputError, match="before the trace"):
        sparse.attention_pattern(memory.trace(torch.randn(2, 1, 3), used)[2])
    with pytest.raises(AnalysisInputError, match="outside the pattern"):
        sparse.path_polynomials([[], [1]], 2, 0.5)
    for t, k in ((0, 1), (-1, 2), (1, 2)):
        with pytest.raises(AnalysisInputError, match="outside the pattern"):
            sparse.chi([[], [1], [1]], t, k)
    with pytest.raises(AnalysisInputError, match="not be negative"):
        sparse.chi([[], [1], [1]], 2, -1)
    for member in (3, 0):
        with pytest.raises(AnalysisInputError, match=f"A_2 has a member {member}"):
            sparse.depth_matrix([[], [1], [member], [1]])
    with pytest.raises(AnalysisInputError, match="must hold"):
        sparse.chain_pattern(2, 6, steps=10)
