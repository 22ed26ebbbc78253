"""RelLSTM, RelRNN, MemLSTM and MemRNN against a literal version, and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from relagent.memories import MEMORIES, MemoryOptionError, RelLSTM, make_memory
from relagent.memories.base import Memory
from relagent.memories.relevancy import RelevancyMemory, RelevancyState

from . import literal
from .helpers import (
    FEATURES,
    HIDDEN,
    Problem,
    assert_close,
    gradients,
    implementations,
    make,
    problems,
    sequence,
    weighted,
)

LENGTHS = {"rel": (3, 2), "rel-rnn": (2, 4), "mem": (None, 0), "mem-rnn": (None, 0)}


def compare(name: str, memory: Memory[Any], problem: Problem, nu: int | None, rho: int) -> None:
    """Outputs, gradients, what is remembered and its scores: all as in the literal version."""
    leaves = [problem.x.requires_grad_(), *memory.parameters()]
    expected, rows, history = literal.unroll(memory, problem.x, problem.starts, nu, rho)
    expected_gradients = gradients(weighted(expected), leaves)

    for implementation in implementations(name).values():
        with implementation():
            y, last = memory.unroll(problem.x, memory.initial_state(problem.rows), problem.starts)
        assert_close(y, expected, 1e-10)
        for gradient, wanted in zip(
            gradients(weighted(y), leaves), expected_gradients, strict=True
        ):
            assert_close(gradient, wanted, 1e-10)
        for b, row in enumerate(rows):
            assert_close(last.s[b], row.s, 1e-10)
            assert_close(last.c[b], row.c, 1e-10)
            occupied = last.ages[b] >= 0 if nu is not None else last.occupied[b]
            known = row.relevant + row.short
            assert_close(last.states[b][occupied], torch.stack([one.h for one in known]), 1e-10)
            scores = torch.tensor([one.score for one in known], dtype=y.dtype)
            assert_close(last.scores[b][occupied], scores, 1e-10)
            if nu is not None:
                made = [problem.steps - 1 - age for age in last.ages[b][occupied].tolist()]
                assert made == [one.made for one in known]

    _, _, look = memory.trace(problem.x, memory.initial_state(problem.rows), problem.starts)
    for t in range(problem.steps):
        for b in range(problem.rows):
            evicted, admitted, made = history[t][b]
            assert sorted(t - age for age in look.ages[t, b].tolist() if age >= 0) == made
            assert look.admitted[t, b] == admitted
            assert look.evicted[t, b] == (t - evicted if evicted >= 0 else -1)
    for b, row in enumerate(rows):
        weights = look.weights[-1, b][look.ages[-1, b] >= 0]
        assert_close(weights, torch.tensor(row.last_weights, dtype=weights.dtype), 1e-10)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_long_sequences_with_resets_equal_the_literal_version(name: str, combine: str) -> None:
    nu, rho = LENGTHS[name]
    options = {} if nu is None else {"nu": nu, "rho": rho}
    memory = make(name, seed=11, combine=combine, **options)
    # Full attention is quadratic in the episode's length: shorter episodes for it.
    problem = sequence(200, 2, seed=12, chance=0.02 if nu is not None else 0.1)
    compare(name, memory, problem, nu, rho)


@pytest.mark.parametrize("name", LENGTHS)
@given(problem=problems(max_steps=12, max_rows=2), nu=st.integers(1, 4), rho=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_short_sequences_equal_the_literal_version(
    name: str, problem: Problem, nu: int, rho: int
) -> None:
    if LENGTHS[name][0] is None:
        compare(name, make(name, seed=problem.seed), problem, None, 0)
    else:
        compare(name, make(name, seed=problem.seed, nu=nu, rho=rho), problem, nu, rho)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "modrelu"])
@pytest.mark.parametrize("name", ["rel-rnn", "mem-rnn"])
def test_every_nonlinearity_equals_the_literal_version(name: str, nonlinearity: str) -> None:
    options: dict[str, Any] = {"nu": 2, "rho": 2} if name == "rel-rnn" else {}
    memory: Any = make(name, nonlinearity=nonlinearity, combine="mean", **options)
    with torch.no_grad():
        memory.cell.recurrent_weight /= 4  # unbounded units stay small
    compare(name, memory, sequence(25, 2, 5), options.get("nu"), options.get("rho", 0))


@pytest.mark.parametrize("name", ["rel", "rel-rnn"])
def test_tied_scores_are_screened_as_in_the_literal_version(name: str) -> None:
    """With v_a = 0 all weights are 1/k exactly, so all scores of a full memory tie."""
    memory = make(name, nu=3, rho=2)
    assert isinstance(memory, RelevancyMemory)
    nn.init.zeros_(memory.attention.energy_weight)
    compare(name, memory, sequence(60, 3, seed=9, chance=0.1), 3, 2)


SCORES = st.sampled_from([0.0, 0.25, 0.5])  # so few that they tie


@pytest.mark.parametrize("name", ["rel", "rel-rnn"])
@given(data=st.data(), nu=st.integers(1, 3), rho=st.integers(0, 3), full=st.booleans())
@settings(max_examples=40, deadline=None)
def test_screening_any_scores_and_ties(
    name: str, data: st.DataObject, nu: int, rho: int, full: bool
) -> None:
    """One step from a made-up memory: who is admitted, who is evicted, and from which slot."""
    memory = make(name, nu=nu, rho=rho)
    short = nu if full else data.draw(st.integers(0, nu), "members of S")
    relevant = 0
    if short == nu:
        relevant = data.draw(st.integers(0, rho), "members of R")
    scores = data.draw(st.lists(SCORES, min_size=relevant + short, max_size=relevant + short))
    torch.manual_seed(0)

    state = memory.initial_state(1)
    assert isinstance(state, RelevancyState)
    slots = [*range(relevant), *range(rho + nu - short, rho + nu)]
    row = literal.Row(state.s[0], state.c[0])
    for slot, score in zip(slots, scores, strict=True):
        one = literal.Remembered(torch.randn(HIDDEN).double(), made=slot - 100, score=score)
        (row.relevant if slot < rho else row.short).append(one)
        state.states[0, slot] = one.h
        state.scores[0, slot] = score
        state.ages[0, slot] = -1 - one.made  # as of step -1; now is step 0

    new = literal.Remembered(torch.zeros(HIDDEN).double(), made=0)
    literal.screen(row, new, nu, rho)
    expected = [one.made for one in row.relevant + row.short]

    x = torch.randn(1, 1, FEATURES).double()
    for implementation in implementations(name).values():
        with implementation():
            _, last = memory.unroll(x, state)
        occupied = last.ages[0] >= 0
        assert (-last.ages[0][occupied]).tolist() == expected
        for slot in range(rho):  # R's scores are frozen
            if slot < len(row.relevant):
                assert last.scores[0, slot] == row.relevant[slot].score
    _, _, look = memory.trace(x, state)
    assert look.admitted.item() == row.admitted
    assert look.evicted.item() == (-row.evicted if row.evicted != -1 else -1)


# --- One memory is another's special case --------------------------------------------------------


def share_parameters(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


@pytest.mark.parametrize(("sparse", "full"), [("rel", "mem"), ("rel-rnn", "mem-rnn")])
@pytest.mark.parametrize(("nu", "rho"), [(20, 0), (20, 3), (30, 5), (1, 19), (12, 8)])
@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_sparse_attention_that_reaches_all_is_full_attention(
    sparse: str, full: str, nu: int, rho: int, combine: str
) -> None:
    one = make(sparse, nu=nu, rho=rho, combine=combine)
    other = make(full, combine=combine)
    share_parameters(one, other)
    problem = sequence(20, 3, seed=21, chance=0.05)
    for one_way in implementations(sparse).values():
        with one_way():
            y, _ = one.unroll(problem.x, one.initial_state(3), problem.starts)
        for other_way in implementations(full).values():
            with other_way():
                z, _ = other.unroll(problem.x, other.initial_state(3), problem.starts)
            assert_close(y, z, 1e-12)
            for gradient, wanted in zip(
                gradients(weighted(y), list(one.parameters())),
                gradients(weighted(z), list(other.parameters())),
                strict=True,
            ):
                assert_close(gradient, wanted, 1e-10)


def test_a_short_sparse_memory_is_not_full_attention() -> None:
    one, other = make("rel", nu=2, rho=1), make("mem")
    share_parameters(one, other)
    x = sequence(20, 2, seed=21).x
    y, z = (memory.unroll(x, memory.initial_state(2))[0] for memory in (one, other))
    assert_close(y[:3], z[:3], 1e-12)  # κ = 3 states are all there is
    assert (y[5:] - z[5:]).abs().min() > 1e-9


@pytest.mark.parametrize("name", ["mem", "rel"])
def test_lstm_with_attention_forced_to_0_is_lstm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: Any = make(name)
    plain: Any = make("lstm")
    share_parameters(memory.cell, plain.cell)

    def nothing(s: Tensor, states: Tensor, occupied: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(s), torch.zeros_like(occupied, dtype=s.dtype)

    monkeypatch.setattr(memory.attention, "forward", nothing)
    problem = sequence(25, 3, seed=6)
    with implementations(name)["definition"]():
        y, last = memory.unroll(problem.x, memory.initial_state(3), problem.starts)
    for implementation in implementations("lstm").values():
        with implementation():
            z, (h, c) = plain.unroll(problem.x, plain.initial_state(3), problem.starts)
        assert_close(y, z, 1e-12)
        assert_close(last.s, h, 1e-12)
        assert_close(last.c, c, 1e-12)


def test_lstm_equals_torch() -> None:
    memory: Any = make("lstm")
    peer: Any = nn.LSTM(FEATURES, HIDDEN).double()
    peer.weight_ih_l0.data = memory.cell.input_weight.data
    peer.weight_hh_l0.data = memory.cell.recurrent_weight.data
    peer.bias_ih_l0.data = memory.cell.bias.data
    peer.bias_hh_l0.data.zero_()
    x = sequence(30, 3, seed=2).x
    expected, (h, c) = peer(x)
    for implementation in implementations("lstm").values():
        with implementation():
            y, last = memory.unroll(x, memory.initial_state(3))
        assert_close(y, expected, 1e-12)
        assert_close(last.h, h[0], 1e-12)
        assert_close(last.c, c[0], 1e-12)


def test_gru_equals_torch() -> None:
    memory: Any = make("gru")
    peer: Any = nn.GRU(FEATURES, HIDDEN).double()
    peer.weight_ih_l0.data = memory.input_weight.data
    peer.weight_hh_l0.data = memory.recurrent_weight.data
    peer.bias_ih_l0.data = memory.bias.data
    peer.bias_hh_l0.data.zero_()
    peer.bias_hh_l0.data[2 * HIDDEN :] = memory.candidate_bias.data
    x = sequence(30, 3, seed=2).x
    expected, h = peer(x)
    for implementation in implementations("gru").values():
        with implementation():
            y, last = memory.unroll(x, memory.initial_state(3))
        assert_close(y, expected, 1e-12)
        assert_close(last.h, h[0], 1e-12)


@pytest.mark.parametrize("name", ["mem", "mem-rnn"])
def test_full_attention_drops_slots_that_nobody_needs(name: str) -> None:
    memory: Any = make(name)
    for implementation in implementations(name).values():
        with implementation():
            _, state = memory.unroll(sequence(10, 2, seed=1).x, memory.initial_state(2))
        assert state.states.shape[1] == 10
        assert memory.reset(state, torch.tensor([True, False])).states.shape[1] == 10
        assert memory.reset(state, torch.tensor([True, True])).states.shape[1] == 0


# --- Gradients through what is remembered --------------------------------------------------------


def test_remembered_states_carry_gradient_across_a_split() -> None:
    """A loss now reaches an input long ago through R alone, with the recurrence cut."""
    memory = make("rel", nu=2, rho=3)
    assert isinstance(memory, RelLSTM)
    for implementation in implementations("rel").values():
        x = sequence(12, 1, seed=3).x.requires_grad_()
        with implementation():
            _, state = memory.unroll(x, memory.initial_state(1))
            cut = state._replace(s=state.s.detach(), c=state.c.detach())
            y, _ = memory.unroll(x[:1].detach(), cut)
        (gradient,) = gradients(weighted(y), [x])
        relevant = [11 - age for age in state.ages[0, : memory.rho].tolist()]
        assert gradient[relevant].any(dim=2).all()
        assert not state.scores.requires_grad


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rell", {}, "unknown memory 'rell' (did you mean rel?): choose one of none, lstm"),
        ("transformer", {}, "unknown memory 'transformer': choose one of"),
        ("rel", {"mu": 3}, "memory 'rel' cannot be made"),
        ("lstm", {"nu": 3}, "memory 'lstm' cannot be made"),
        ("rel", {"nu": 0}, "nu=0, rho=5 cannot work"),
        ("rel-rnn", {"rho": -1}, "nu=5, rho=-1 cannot work"),
        ("rel", {"combine": "product"}, "unknown combine 'product': choose sum or mean"),
        ("mem", {"combine": "product"}, "unknown combine 'product': choose sum or mean"),
        ("rel-rnn", {"nonlinearity": "sin"}, "unknown nonlinearity 'sin': choose one of tanh"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MemoryOptionError) as error:
        make_memory(name, FEATURES, HIDDEN, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- Sizes, as in the literature -----------------------------------------------------------------

# n = 128 on the copy task (10 features in, 9 classes out), with the linear layer to the classes.
PUBLISHED = {"lstm": 72_329, "mem": 105_225, "rel": 105_225}
PUBLISHED_MODRELU = {"mem-rnn": 51_977, "rel-rnn": 51_977}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [(name, {}, count) for name, count in PUBLISHED.items()]
    + [(name, {"nonlinearity": "modrelu"}, count) for name, count in PUBLISHED_MODRELU.items()],
)
def test_parameter_counts_are_the_published_ones(
    name: str, options: dict[str, Any], count: int
) -> None:
    memory = make_memory(name, 10, 128, **options)
    model = nn.Sequential(memory, nn.Linear(128, 9))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_every_name_makes_a_memory_of_its_size() -> None:
    for name in MEMORIES:
        memory = make_memory(name, 5, 8)
        y, _ = memory(torch.zeros(3, 2, 5), memory.initial_state(2))
        assert y.shape == (3, 2, 8)


@pytest.mark.parametrize("name", ["mem", "mem-rnn"])
def test_a_state_taken_out_of_the_middle_is_gone(name: str) -> None:
    """As if it had never been there; the states on both sides of it stay."""
    memory: Any = make(name)
    problem = sequence(6, 2, seed=3, chance=0)
    state = memory.unroll(sequence(9, 2, seed=1, chance=0).x, memory.initial_state(2))[1]
    occupied = state.occupied.clone()
    occupied[:, 4] = False
    holed = state._replace(occupied=occupied)
    kept = [m for m in range(9) if m != 4]
    without = state._replace(
        states=state.states[:, kept], occupied=occupied[:, kept], scores=state.scores[:, kept]
    )
    expected = memory.unroll_definition(problem.x, without, problem.starts)[0]
    for implementation in implementations(name).values():
        with implementation():
            y, middle = memory.unroll(problem.x[:3], holed)
            y = torch.cat([y, memory.unroll(problem.x[3:], middle)[0]])
        assert_close(y, expected, 1e-12)
