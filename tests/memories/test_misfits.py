"""What every memory says of sizes, inputs and states that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from relagent.memories import (
    MEMORIES,
    MemoryInputError,
    MemoryOptionError,
    make_memory,
    map_state,
)

from .helpers import FEATURES, HIDDEN, SMALL, Implementation, make, over, sequence

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
        None,
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
