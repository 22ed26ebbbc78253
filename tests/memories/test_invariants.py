"""What must hold for every memory, each with its definition and with its kernel."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relagent.memories import (
    MEMORIES,
    AnyState,
    Memory,
    MemoryOptionError,
    detach_state,
    make_memory,
    map_state,
    take_rows,
)
from relagent.memories.attention import AttentiveMemory
from relagent.memories.sab import SAB

from .equality import ATTENTIVE, KERNELS
from .helpers import (
    FEATURES,
    HIDDEN,
    UNTRUNCATED,
    Implementation,
    Problem,
    assert_close,
    assert_same_state,
    differentiable,
    gradients,
    implementations,
    leaves,
    make,
    over,
    problems,
    sequence,
    trainable,
    used_state,
    weighted,
)

every_memory = over(list(MEMORIES))
few = settings(max_examples=12, deadline=None)


def garbage(state: AnyState, value: float, rows: Tensor) -> AnyState:
    """The state with nonsense in the given rows [B], whatever the field's type."""

    def spoil(field: Tensor) -> Tensor:
        field = field.clone()
        field[rows] = value if field.is_floating_point() else 7  # a Boolean becomes true
        return field

    return map_state(spoil, state)


# --- Episodes are isolated -----------------------------------------------------------------------


@every_memory
@pytest.mark.parametrize("value", [1e10, float("nan"), float("inf")])
@given(problem=problems())
@few
def test_state_before_a_reset_leaves_no_trace(
    name: str, implementation: Implementation, value: float, problem: Problem
) -> None:
    memory = make(name)
    past = used_state(memory, problem.rows)
    reset = torch.arange(problem.rows) % 2 == 0
    problem.starts[0] = reset

    def run(state: AnyState) -> tuple[Tensor, AnyState, list[Tensor], list[Tensor]]:
        state = leaves(state)
        with implementation():
            y, last = memory.unroll(problem.x, state, problem.starts)
        carried = gradients(weighted(y), list(differentiable(state).values()))
        return y, last, carried, gradients(weighted(y), trainable(memory))

    y, last, carried, learned = run(past)
    spoilt_y, spoilt_last, spoilt_carried, spoilt_learned = run(garbage(past, value, reset))

    assert torch.equal(spoilt_y, y)
    assert all(map(torch.equal, spoilt_last, last))
    assert all(map(torch.equal, spoilt_carried, carried))
    assert all(not gradient[reset].any() for gradient in spoilt_carried)
    for spoilt, clean in zip(spoilt_learned, learned, strict=True):
        assert_close(spoilt, clean, 1e-12)


@every_memory
@given(problem=problems(), data=st.data())
@few
def test_inputs_before_a_reset_leave_no_trace(
    name: str, implementation: Implementation, problem: Problem, data: st.DataObject
) -> None:
    memory = make(name)
    steps = torch.arange(problem.steps).unsqueeze(1)
    first = torch.tensor(
        [data.draw(st.integers(0, problem.steps - 1), f"start {b}") for b in range(problem.rows)]
    )
    starts = problem.starts | (steps == first)
    before, after = steps < first, steps >= first

    def run(value: float | None) -> tuple[Tensor, Tensor, AnyState, list[Tensor]]:
        x = problem.x.clone()
        if value is not None:
            x[before] = value
        x.requires_grad_()
        with implementation():
            y, last = memory.unroll(x, memory.initial_state(problem.rows), starts)
        loss = weighted(torch.where(after.unsqueeze(2), y, 0))
        (gradient,) = gradients(loss, [x])
        return y[after], gradient, last, gradients(loss, trainable(memory))

    y, gradient, last, learned = run(None)
    huge_y, huge_gradient, huge_last, huge_learned = run(1e10)
    assert torch.equal(huge_y, y)
    assert torch.equal(huge_gradient, gradient)
    assert not gradient[before].any()
    assert all(map(torch.equal, huge_last, last))
    for huge, clean in zip(huge_learned, learned, strict=True):
        assert_close(huge, clean, 1e-12)

    # Outputs and states alone: 0 times the slope at NaN is a gradient of NaN.
    nan_y, _, nan_last, _ = run(float("nan"))
    assert torch.equal(nan_y, y)
    assert all(map(torch.equal, nan_last, last))


@every_memory
def test_reset_empties_exactly_the_rows_asked_for(
    name: str, implementation: Implementation
) -> None:
    memory = make(name)
    x = sequence(6, 4, seed=3).x
    rows = torch.tensor([True, False, True, False])
    with implementation():
        state = used_state(memory, rows=4)
        after = memory.reset(state, rows)
        y, _ = memory.unroll(x, after)
        begun, _ = memory.unroll(x[:, rows], memory.initial_state(2))
        kept, _ = memory.unroll(x, state)
    for field in take_rows(after, rows.nonzero()[:, 0]):
        assert torch.all(field == (-1 if field.dtype == torch.int64 else 0))
    assert_close(y[:, rows], begun, 1e-12)
    assert_close(y[:, ~rows], kept[:, ~rows], 1e-12)
    for field in memory.initial_state(2):
        assert torch.all(field == (-1 if field.dtype == torch.int64 else 0))


# --- T steps are one sequence --------------------------------------------------------------------


@every_memory
@given(problem=problems(), data=st.data())
@few
def test_steps_equal_the_sequence_split_anywhere(
    name: str, implementation: Implementation, problem: Problem, data: st.DataObject
) -> None:
    memory = make(name)
    x, starts = problem.x, problem.starts
    split = data.draw(st.integers(0, problem.steps), "split")
    start = used_state(memory, problem.rows)
    with implementation():
        y, last = memory.unroll(x, start, starts)

        state, parts = start, []
        for part in (slice(None, split), slice(split, None)):
            if len(x[part]):
                y_part, state = memory.unroll(x[part], state, starts[part])
                parts.append(y_part)
        assert_close(torch.cat(parts), y, 1e-12)
        assert_same_state(state, last, 1e-12)

    state, outputs = start, []
    for x_t, starts_t in zip(x, starts, strict=True):
        y_t, state = memory.step(x_t, memory.reset(state, starts_t))
        outputs.append(y_t)
    assert_close(torch.stack(outputs), y, 1e-12)
    assert_same_state(state, last, 1e-12)


@every_memory
@given(problem=problems(max_steps=10), data=st.data())
@few
def test_gradients_do_not_see_a_split(
    name: str, implementation: Implementation, problem: Problem, data: st.DataObject
) -> None:
    memory = make(name)
    split = data.draw(st.integers(0, problem.steps), "split")
    cuts = [slice(None, split), slice(split, None)] if 0 < split < problem.steps else [slice(None)]

    def run(parts: list[slice]) -> list[Tensor]:
        x = problem.x.clone().requires_grad_()
        start = leaves(used_state(memory, problem.rows))
        state, outputs = start, []
        with implementation():
            for part in parts:
                y, state = memory.unroll(x[part], state, problem.starts[part])
                outputs.append(y)
        loss = weighted(torch.cat(outputs))
        for field in differentiable(state).values():
            loss = loss + weighted(field)
        return gradients(loss, [x, *differentiable(start).values(), *trainable(memory)])

    for split_gradient, gradient in zip(run(cuts), run([slice(None)]), strict=True):
        assert_close(split_gradient, gradient, 1e-10)


# --- The future is unknown, the past is what it was ----------------------------------------------


@every_memory
@given(problem=problems(), data=st.data())
@few
def test_outputs_do_not_depend_on_the_future(
    name: str, implementation: Implementation, problem: Problem, data: st.DataObject
) -> None:
    memory = make(name)
    now = data.draw(st.integers(0, problem.steps - 1), "now")
    changed = problem.x.clone()
    changed[now + 1 :] = 1e3
    with implementation():
        y, _ = memory.unroll(problem.x, memory.initial_state(problem.rows), problem.starts)
        other, _ = memory.unroll(changed, memory.initial_state(problem.rows), problem.starts)
    assert torch.equal(y[: now + 1], other[: now + 1])


def attentive() -> list[str]:
    found = []
    for name in MEMORIES:
        memory = make(name)
        try:
            memory.trace(torch.zeros(1, 1, FEATURES).double(), memory.initial_state(1))
        except MemoryOptionError:
            continue
        found.append(name)
    return found


def test_the_tests_range_over_all_kernels_and_all_attention() -> None:
    assert {name for name in MEMORIES if "kernel" in implementations(name)} == {*KERNELS, "sab"}
    assert attentive() == [name for name in MEMORIES if name in ATTENTIVE]


@over(attentive())
@given(problem=problems(max_steps=25))
@few
def test_attention_falls_on_the_remembered_states_of_this_episode_only(
    name: str, implementation: Implementation, problem: Problem
) -> None:
    memory = make(name)
    start = memory.initial_state(problem.rows)
    y, last, look = memory.trace(problem.x, start, problem.starts)
    with implementation():
        unrolled, unrolled_last = memory.unroll(problem.x, start, problem.starts)
    assert_close(unrolled, y, 1e-12)
    assert_same_state(unrolled_last, last, 1e-12)

    occupied = look.ages >= 0
    anything = occupied.any(dim=2)
    assert_close(look.weights.sum(dim=2), anything.to(y.dtype), 1e-12)
    assert torch.all(look.weights >= 0)
    assert not look.weights[~occupied].any()
    assert not look.relevance[~occupied].any()

    for b in range(problem.rows):
        episode = 0
        forgotten: set[int] = set()
        for t in range(problem.steps):
            if problem.starts[t, b]:
                episode, forgotten = t, set()
            if look.evicted[t, b] >= 0:
                forgotten.add(t - int(look.evicted[t, b]))
            made = (t - look.ages[t, b][occupied[t, b]]).tolist()
            assert len(set(made)) == len(made)  # each state once
            assert all(episode <= moment <= t for moment in made)
            assert forgotten.isdisjoint(made)


@pytest.mark.parametrize("name", sorted(set(MEMORIES) - set(attentive())))
def test_a_memory_without_attention_says_so(name: str) -> None:
    memory = make(name)
    with pytest.raises(MemoryOptionError, match=r"cannot tell .* such as rel or mem$"):
        memory.trace(torch.zeros(1, 1, FEATURES).double(), memory.initial_state(1))


# --- An empty memory is no special case ----------------------------------------------------------


@every_memory
@pytest.mark.parametrize("others_full", [False, True])
def test_the_first_step_is_finite(
    name: str, implementation: Implementation, others_full: bool
) -> None:
    memory = make(name)
    x = sequence(5, 3, seed=2).x.requires_grad_()
    starts = torch.zeros(5, 3, dtype=torch.bool)
    starts[0, 1] = True
    state = leaves(used_state(memory, 3, steps=20) if others_full else memory.initial_state(3))
    with implementation():
        for length in (1, 5):
            y, last = memory.unroll(x[:length], state, starts[:length])
            assert y.shape == (length, 3, HIDDEN)
            assert all(field.shape[0] == 3 for field in last)
            assert all(torch.isfinite(tensor).all() for tensor in (y, *last))
            carried = list(differentiable(state).values())
            found = gradients(weighted(y), [x, *carried, *trainable(memory)])
            assert all(torch.isfinite(gradient).all() for gradient in found)
            assert found[0][:length].any()


# --- Rows do not know of each other --------------------------------------------------------------


@every_memory
@given(problem=problems(), seed=st.integers(0, 1000))
@few
def test_rows_are_independent(
    name: str, implementation: Implementation, problem: Problem, seed: int
) -> None:
    memory = make(name)
    x, starts = problem.x, problem.starts
    state = used_state(memory, problem.rows)
    more = sequence(4, problem.rows, seed).x
    with implementation():
        y, last = memory.unroll(x, state, starts)
        future, _ = memory.unroll(more, last)

        order = torch.randperm(problem.rows, generator=torch.Generator().manual_seed(seed))
        shuffled, shuffled_last = memory.unroll(
            x[:, order], take_rows(state, order), starts[:, order]
        )
        assert_close(shuffled, y[:, order], 1e-12)
        assert_same_state(shuffled_last, take_rows(last, order), 1e-12)

        for b in range(problem.rows):
            row = slice(b, b + 1)
            alone, alone_last = memory.unroll(
                x[:, row], take_rows(state, torch.tensor([b])), starts[:, row]
            )
            assert_close(alone, y[:, row], 1e-12)
            # A row alone may hold fewer empty slots: equal states are those with an equal future.
            assert_close(memory.unroll(more[:, row], alone_last)[0], future[:, row], 1e-12)


@every_memory
def test_equal_rows_stay_equal_and_runs_repeat(name: str, implementation: Implementation) -> None:
    memory = make(name)
    x = sequence(40, 1, seed=4).x.round().expand(-1, 3, -1)  # rounded: many equal inputs
    with implementation():
        y, last = memory.unroll(x, memory.initial_state(3))
        again, again_last = memory.unroll(x, memory.initial_state(3))
    assert torch.equal(y, again)
    assert all(map(torch.equal, last, again_last))
    assert_close(y[:, 1], y[:, 0], 1e-12)
    assert_close(y[:, 2], y[:, 0], 1e-12)


# --- Derivatives ---------------------------------------------------------------------------------


@every_memory
@pytest.mark.parametrize("steps", [1, 5])
def test_gradients_equal_finite_differences(
    name: str, implementation: Implementation, steps: int
) -> None:
    memory = make(name, seed=3, **UNTRUNCATED.get(name, {}))
    problem = sequence(steps, 2, seed=8, chance=0.1)
    state = used_state(memory, 2)
    fields = differentiable(state)
    parameters = {k: p for k, p in memory.named_parameters() if p.requires_grad}

    def function(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        carried = state._replace(**dict(zip(fields, values, strict=False)))
        weights = dict(zip(parameters, values[len(fields) :], strict=True))
        y, last = torch.func.functional_call(memory, weights, (x, carried, problem.starts))
        return y, *differentiable(last).values()

    arguments = [problem.x, *fields.values(), *parameters.values()]
    with implementation():
        assert torch.autograd.gradcheck(
            function, [argument.detach().clone().requires_grad_() for argument in arguments]
        )


@every_memory
def test_a_detached_state_cuts_the_graph(name: str, implementation: Implementation) -> None:
    memory = make(name)
    with implementation():
        _, state = memory.unroll(sequence(3, 2, seed=1).x, memory.initial_state(2))
    assert not any(field.requires_grad for field in detach_state(state))


# --- State and outputs ---------------------------------------------------------------------------


@every_memory
def test_a_plain_tuple_does_for_a_state(name: str, implementation: Implementation) -> None:
    memory = make(name)
    problem = sequence(5, 3, seed=2)
    state = used_state(memory, 3)
    with implementation():
        y, last = memory(problem.x, state, problem.starts)
        again, again_last = memory(problem.x, tuple(state), problem.starts.numpy())
    assert torch.equal(y, again)
    assert type(again_last) is type(last) and all(map(torch.equal, last, again_last))


@every_memory
def test_changing_the_outputs_in_place_changes_no_state(
    name: str, implementation: Implementation
) -> None:
    memory = make(name)
    with implementation(), torch.no_grad():
        y, last = memory.unroll(sequence(3, 2, seed=1).x, memory.initial_state(2))
        before = map_state(torch.clone, last)
        y.zero_()
    assert all(map(torch.equal, before, last))


@every_memory
def test_function_transforms_and_forward_mode_agree_with_the_gradient(
    name: str, implementation: Implementation
) -> None:
    memory = make(name, **UNTRUNCATED.get(name, {}))
    x, along = sequence(4, 2, seed=1).x, sequence(4, 2, seed=2).x
    state = memory.initial_state(2)

    def loss(x: Tensor) -> Tensor:
        return weighted(memory.unroll(x, state)[0])

    if name == "exp-rnn":
        pytest.skip("torch's matrix exponential inside a parametrisation has no forward mode")
    (expected,) = gradients(loss(leaf := x.clone().requires_grad_()), [leaf])
    with implementation():
        assert_close(torch.func.grad(loss)(x), expected, 1e-12)
        assert_close(torch.func.jvp(loss, (x,), (along,))[1], (expected * along).sum(), 1e-12)
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = loss(torch.autograd.forward_ad.make_dual(x, along))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    assert tangent is not None
    assert_close(tangent, (expected * along).sum(), 1e-12)


@every_memory
def test_many_sequences_at_once_give_the_gradients_of_each(
    name: str, implementation: Implementation
) -> None:
    if name == "exp-rnn":
        pytest.skip("torch's parametrisations cannot be run under vmap")
    memory = make(name)
    many = torch.stack([sequence(4, 2, seed=seed).x for seed in range(3)])
    weights = torch.randn(4, 2, memory.hidden_size, dtype=many.dtype)

    def loss(x: Tensor) -> Tensor:
        return (weights * memory.unroll(x, memory.initial_state(2))[0]).sum()

    with implementation():
        for x, found in zip(many, torch.func.vmap(torch.func.grad(loss))(many), strict=True):
            (expected,) = gradients(loss(leaf := x.clone().requires_grad_()), [leaf])
            assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_state_out_of_autocast_serves_without_it(name: str) -> None:
    memory = make_memory(name, FEATURES, HIDDEN)
    x = torch.randn(3, 2, FEATURES)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = memory.unroll(x, memory.initial_state(2))
    y, _ = memory.unroll(x, state)
    assert y.dtype == torch.float32 and y.isfinite().all()


@pytest.mark.parametrize("name", MEMORIES)
def test_a_transformed_call_leaves_nothing_behind(name: str) -> None:
    memory = make_memory(name, FEATURES, HIDDEN)
    torch.func.grad(lambda x: memory.unroll(x)[0].sum())(torch.randn(3, 2, FEATURES))
    twin = copy.deepcopy(memory)
    x = torch.randn(3, 2, FEATURES)
    assert torch.equal(twin.unroll(x)[0], memory.unroll(x)[0])


class Stack(Memory[tuple[Tensor]]):
    """The last inputs, one beside the other: no parameters."""

    def initial_state(self, batch: int) -> tuple[Tensor]:
        return (self.zeros(batch, self.hidden_size),)

    def step(self, x: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        stack = torch.cat([state[0], x], dim=1)[:, self.input_size :]
        return stack, (stack,)


def test_a_memory_without_parameters_goes_where_its_module_goes() -> None:
    memory = Stack(2, 6).double()
    y, _ = memory.unroll(
        torch.arange(8.0, dtype=torch.float64).view(4, 1, 2), memory.initial_state(1)
    )
    assert y[-1].tolist() == [[2, 3, 4, 5, 6, 7]]
    assert memory.to("meta").initial_state(1)[0].device.type == "meta"
    assert memory.state_dict() == {}


@pytest.mark.parametrize("name", MEMORIES)
def test_forgetting_keeps_the_recurrence_alone(name: str) -> None:
    memory = make_memory(name, 3, 4)
    _, state = memory.unroll(torch.randn(7, 2, 3), memory.initial_state(2))
    carried, empty = memory.forget(state), memory.initial_state(2)
    assert type(carried) is type(empty)
    for field in state._fields:
        after, before, blank = (getattr(s, field) for s in (carried, state, empty))
        if field in ("s", "h", "c"):
            assert torch.equal(after, before)
        else:  # only a memory with attention remembers anything beside its recurrence
            assert isinstance(memory, AttentiveMemory | SAB) or before.numel() == 0
            assert torch.equal(after, blank)


@pytest.mark.parametrize("name", ["rel", "mem", "rel-rnn", "mem-rnn"])
def test_after_forgetting_only_new_states_are_attended_to(name: str) -> None:
    memory = make_memory(name, 3, 4)
    x = torch.randn(5, 2, 3)
    _, state = memory.unroll(x, memory.initial_state(2))
    _, _, look = memory.trace(x, memory.forget(state))
    steps = torch.arange(5).view(5, 1, 1)
    assert (look.ages <= steps).all()
    assert torch.allclose(look.weights.sum(dim=2), torch.ones(5, 2))
