"""What every memory says of sizes, inputs and states that do not fit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from relagent.memories import (
    MEMORIES,
    Memory,
    MemoryInputError,
    MemoryOptionError,
    RelLSTM,
    make_memory,
    map_state,
    options_of,
)

from .helpers import FEATURES, HIDDEN, SMALL, Implementation, make, over, sequence, used_state

every_memory = over(list(MEMORIES))


@every_memory
@pytest.mark.parametrize(
    ("x", "starts"),
    [
        (torch.zeros(2, FEATURES), None),
        (torch.zeros(2, 3, FEATURES + 1), None),
        (torch.zeros(0, 3, FEATURES), None),
        (torch.zeros(2, 3, FEATURES), torch.zeros(3, 2)),
        (torch.zeros(2, 3, FEATURES), torch.zeros(2)),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    name: str, implementation: Implementation, x: Tensor, starts: Tensor | None
) -> None:
    memory = make_memory(name, FEATURES, HIDDEN)
    with implementation(), pytest.raises(MemoryInputError) as error:
        memory.unroll(x, memory.initial_state(3), starts)
    assert "\n" not in str(error.value)
    assert str(list(x.shape if starts is None else starts.shape)) in str(error.value)


@every_memory
def test_a_state_that_does_not_fit_is_named(name: str, implementation: Implementation) -> None:
    memory = make(name)
    x = sequence(3, 4, seed=0).x
    fits = memory.initial_state(4)
    wider = make_memory(name, FEATURES, 2 * HIDDEN, **SMALL.get(name, {})).double()
    misfits: list[Any] = [
        memory.initial_state(2),
        list(fits),
        fits[:-1],
        map_state(lambda field: field.unsqueeze(0), fits),
        map_state(lambda field: field.to(torch.complex128), fits),
        map_state(lambda field: field.to("meta"), fits),
    ]
    if fits[0].numel():  # the memory that remembers nothing has states of one width
        misfits.append(wider.initial_state(4))
    for misfit in misfits:
        with implementation(), pytest.raises(MemoryInputError, match="initial_state") as error:
            memory.unroll(x, misfit)
        assert "\n" not in str(error.value)


@every_memory
def test_what_is_no_tensor_of_numbers_with_a_point_is_named(
    name: str, implementation: Implementation
) -> None:
    memory = make_memory(name, FEATURES, HIDDEN)
    x, state = torch.zeros(2, 3, FEATURES), memory.initial_state(3)
    odd: list[tuple[Any, Any, Any, str]] = [
        (x.long(), state, None, "int64"),
        (x.bool(), state, None, "bool"),
        (x, type(state)(*(None for _ in state)), None, "NoneType"),
        (x, type(state)(*(np.asarray(part) for part in state)), None, "ndarray"),
        (x, state, "abc", "episode_starts"),
        (x, state, [[True], [False, True]], "episode_starts"),
    ]
    for wrong_x, wrong_state, starts, says in odd:
        with implementation(), pytest.raises(MemoryInputError, match=says):
            memory.unroll(wrong_x, wrong_state, starts)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("sizes", [(4.0, 4), (3, True), ("3", 4)])
def test_a_size_that_is_no_whole_number_is_named(name: str, sizes: tuple[Any, Any]) -> None:
    with pytest.raises(MemoryOptionError, match=r"_size=.*pass a whole number"):
        make_memory(name, *sizes)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (-1, 4)])
def test_a_size_below_1_is_named(name: str, sizes: tuple[int, int]) -> None:
    with pytest.raises(MemoryOptionError, match=r"sizes of at least 1.*pass positive sizes"):
        make_memory(name, *sizes)


@pytest.mark.parametrize("name", MEMORIES)
def test_sizes_of_numpy_will_do(name: str) -> None:
    sizes: Any = (np.int64(3), np.int32(16))
    options: Any = {"rel": {"nu": np.int64(2), "rho": np.int32(1)}, "sab": {"k_att": np.int8(2)}}
    memory = make_memory(name, *sizes, **options.get(name, {}))
    json.dumps([value for value in vars(memory).values() if isinstance(value, np.integer | int)])
    assert (memory.input_size, memory.hidden_size) == (3, 16)
    memory.unroll(torch.zeros(2, 1, 3), memory.initial_state(1))


@every_memory
def test_numbers_of_another_width_are_named(name: str, implementation: Implementation) -> None:
    memory = make(name)  # of float64
    x, state = sequence(3, 4, seed=0).x, memory.initial_state(4)
    with implementation():
        with pytest.raises(
            MemoryInputError, match=r"float64 and reads the same, not torch.float32"
        ):
            memory.unroll(x.float(), state)
        with pytest.raises(MemoryInputError, match="reads a tensor, not ndarray"):
            memory.unroll(x.numpy(), state)  # type: ignore[arg-type]
        if state[0].numel():
            half = map_state(lambda t: t.half() if t.is_floating_point() else t, state)
            with pytest.raises(MemoryInputError, match=r"torch.float64.* not .*torch.float16"):
                memory.unroll(x, half)


@every_memory
@pytest.mark.parametrize("convert", [torch.clone, lambda starts: starts.numpy().copy()])
def test_the_starts_of_the_next_sequence_may_be_written_over_these(
    name: str, implementation: Implementation, convert: Any
) -> None:
    memory = make(name)
    x, starts, _ = sequence(9, 3, seed=0, chance=0.2)
    found = []
    for reuse in (False, True):
        buffer = convert(starts)
        with implementation():
            y, _ = memory.unroll(x, memory.initial_state(3), buffer)
        if reuse:
            buffer[:] = ~buffer
        found.append(torch.autograd.grad(y.square().sum(), [*memory.parameters()]))
    assert all(map(torch.equal, *found))


@every_memory
def test_no_state_is_an_empty_one(name: str, implementation: Implementation) -> None:
    memory = make(name)
    x, starts, _ = sequence(5, 3, seed=0)
    with implementation():
        y, _ = memory.unroll(x, episode_starts=starts)
        expected, _ = memory.unroll(x, memory.initial_state(3), starts)
        assert torch.equal(memory(x, None, starts)[0], expected)
    assert torch.equal(y, expected)


@every_memory
def test_only_what_is_remembered_may_grow(name: str, implementation: Implementation) -> None:
    memory = make(name)
    x, state = sequence(2, 4, seed=0).x, memory.initial_state(4)
    for field in state._fields:
        part = getattr(state, field)
        if field not in memory.growing and part.dim() > 1:
            wider = torch.nn.functional.pad(part, (0, HIDDEN))
            with implementation(), pytest.raises(MemoryInputError, match=f"^{field} in the state"):
                memory.unroll(x, state._replace(**{field: wider}))


def test_ages_need_a_sign() -> None:
    memory = make("rel")
    state = memory.initial_state(2)
    with pytest.raises(MemoryInputError, match=r"integer.*not.*unsigned integer"):
        memory.unroll(sequence(2, 2, seed=0).x, state._replace(ages=state.ages.to(torch.uint8)))


@pytest.mark.parametrize(
    ("empty", "growing", "rule"),
    [
        (lambda batch: (torch.zeros(batch, 2),), (0,), r"\[1, 0, \.\.\], not \[1, 2\]"),
        (lambda batch: (torch.zeros(batch, 2),), ("states",), "has no states"),
    ],
)
def test_what_grows_begins_with_nothing(
    empty: Any, growing: Any, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "growing", growing)
    memory = Odd(empty)
    with pytest.raises(MemoryOptionError, match=rule):
        memory.unroll(torch.zeros(2, 3, FEATURES), memory.initial_state(3))


@pytest.mark.parametrize("name", ["mem", "sab"])
def test_parts_of_a_state_remember_equally_much(name: str) -> None:
    memory: Any = make(name)
    state = used_state(memory, 2)
    x = sequence(2, 2, seed=0).x
    with pytest.raises(MemoryInputError, match="equally long"):
        memory.unroll(x, state._replace(occupied=state.occupied[:, :1]))


class Odd(Memory[Any]):
    """A memory that a user could get wrong, in this way or that."""

    def __init__(self, empty: Any = None, made: Any = None) -> None:
        super().__init__(FEATURES, HIDDEN)
        self.empty, self.made = empty, made

    def initial_state(self, batch: int) -> Any:
        return (self.zeros(batch, 1),) if self.empty is None else self.empty(batch)

    def step(self, x: Tensor, state: Any) -> Any:
        y = x.new_zeros(len(x), HIDDEN)
        return (y, state) if self.made is None else self.made(y, state)


@pytest.mark.parametrize(
    ("empty", "rule"),
    [
        (lambda batch: (torch.ones(batch, 2),), r"^0 of Odd\.initial_state.* must be 0\.0 every"),
        (lambda batch: (torch.zeros(batch, 2).long(),), "must be -1 everywhere"),
        (lambda batch: (torch.ones(batch, 2, dtype=torch.bool),), "must be False everywhere"),
        (lambda batch: torch.zeros(batch, 2), "must be a NamedTuple of tensors, the batch first"),
        (lambda batch: {"h": torch.zeros(batch, 2)}, "must be a NamedTuple"),
        (lambda batch: (torch.zeros(3, batch, 2),), "the batch first"),
        (lambda batch: (0.0,), "of tensors"),
    ],
)
def test_an_empty_row_that_a_reset_does_not_leave_is_refused(empty: Any, rule: str) -> None:
    memory = Odd(empty)
    with pytest.raises(MemoryOptionError, match=rule):
        memory.unroll(torch.zeros(2, 3, FEATURES), memory.initial_state(3))


@pytest.mark.parametrize(
    "made",
    [
        lambda y, state: y,
        lambda y, state: (state, y),
        lambda y, state: (y, state[0]),
        lambda y, state: (y[:, 1:], state),
        lambda y, state: (y, state, None),
    ],
)
def test_a_step_that_returns_something_else_is_refused(made: Any) -> None:
    memory = Odd(made=made)
    rule = rf"Odd\.step must return its output, a tensor \[3, {HIDDEN}\], and the next state"
    with pytest.raises(MemoryOptionError, match=rule):
        memory.unroll(torch.zeros(2, 3, FEATURES), memory.initial_state(3))


@pytest.mark.parametrize(
    ("memory", "said"), [(Odd(), "an object of Odd"), (Tensor, "Tensor"), (3, "an object of int")]
)
def test_what_is_no_class_of_memories_is_refused(memory: Any, said: str) -> None:
    with pytest.raises(MemoryOptionError, match=f"^{said} is no memory: pass a registered name"):
        make_memory(memory, FEATURES, HIDDEN)


def test_a_class_of_memories_is_made_like_a_registered_one() -> None:
    assert isinstance(make_memory(MEMORIES["lstm"], FEATURES, HIDDEN), MEMORIES["lstm"])
    with pytest.raises(MemoryOptionError, match=r"memory 'LSTM' cannot be made: .*decay"):
        make_memory(MEMORIES["lstm"], FEATURES, HIDDEN, decay=0.9)


def test_a_memorys_options_are_its_constructors_and_those_it_passes_on() -> None:
    class Own(RelLSTM):
        """Has an option more than RelLSTM."""

        def __init__(
            self, input_size: int, hidden_size: int, *, decay: float, **options: Any
        ) -> None:
            super().__init__(input_size, hidden_size, **options)

    class Closed(RelLSTM):
        """Leaves nothing of RelLSTM's to choose."""

        def __init__(self, input_size: int, hidden_size: int, decay: int = 9) -> None:
            super().__init__(input_size, hidden_size)

    assert options_of("rel") == options_of(RelLSTM) == {"nu", "rho", "combine"}
    assert options_of("lstm") == options_of("unheard-of") == set()
    assert options_of(Own) == {"decay", "nu", "rho", "combine"}
    assert options_of(Closed) == {"decay"}
