"""What the tests of the memories share: which memories, how to make one, random sequences."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from relagent.memories import MEMORIES, AnyState, Memory, kernels, make_memory, map_state

FEATURES = 3
HIDDEN = 4  # a power of 2, which GORU needs

# Small enough that buffers run full, evict and truncate within a few steps.
SMALL: dict[str, dict[str, Any]] = {
    "rel": {"nu": 3, "rho": 2},
    "rel-rnn": {"nu": 2, "rho": 3},
    "sab": {"k_att": 2, "k_top": 2, "k_trunc": 3},
}

# Truncated backpropagation is not the derivative of the outputs: for comparisons with one.
UNTRUNCATED: dict[str, dict[str, Any]] = {"sab": {"k_trunc": 1000}}

Implementation = Callable[[], AbstractContextManager[None]]


def implementations(name: str) -> dict[str, Implementation]:
    """The definition, and the kernel if there is one."""
    found: dict[str, Implementation] = {"definition": kernels.disable}
    if kernels.select(MEMORIES[name], torch.zeros(1, 1, 1, dtype=torch.float64)) is not None:
        found["kernel"] = nullcontext
    return found


def over(names: list[str]) -> pytest.MarkDecorator:
    """Run a test with each of these memories, with its definition and with its kernel."""
    cases = {
        f"{name}-{kind}": (name, implementation)
        for name in names
        for kind, implementation in implementations(name).items()
    }
    return pytest.mark.parametrize(("name", "implementation"), cases.values(), ids=cases.keys())


def make(name: str, seed: int = 0, **options: Any) -> Memory[Any]:
    """A small float64 memory without an accidental 0 or 1 among its parameters."""
    torch.manual_seed(seed)
    memory = make_memory(name, FEATURES, HIDDEN, **{**SMALL.get(name, {}), **options}).double()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return memory


class Problem(NamedTuple):
    """A random sequence."""

    x: Tensor
    """[T, B, F]."""
    starts: Tensor
    """[T, B] bool."""
    seed: int

    @property
    def steps(self) -> int:
        return len(self.x)

    @property
    def rows(self) -> int:
        return self.x.shape[1]


def sequence(steps: int, rows: int, seed: int, chance: float = 0.15) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, rows, FEATURES, generator=generator, dtype=torch.float64)
    starts = torch.rand(steps, rows, generator=generator) < chance
    return Problem(x, starts, seed)


@st.composite
def problems(draw: st.DrawFn, max_steps: int = 14, max_rows: int = 4) -> Problem:
    """Sequences of all small shapes, without, with few and with many episode starts."""
    return sequence(
        steps=draw(st.integers(1, max_steps)),
        rows=draw(st.integers(1, max_rows)),
        seed=draw(st.integers(0, 2**31 - 1)),
        chance=draw(st.sampled_from([0.0, 0.15, 0.5])),
    )


def used_state(memory: Memory[Any], rows: int, seed: int = 1, steps: int = 9) -> Any:
    """A state in the middle of its life: some rows full, some young."""
    past = sequence(steps, rows, seed)
    with torch.no_grad():
        return memory.unroll(past.x, memory.initial_state(rows), past.starts)[1]


def differentiable(state: Any) -> dict[str, Tensor]:
    """The fields of a state that carry gradient: numbers, but not detached statistics."""
    return {
        key: field
        for key, field in state._asdict().items()
        if field.is_floating_point() and field.numel() and key != "scores"
    }


def leaves(state: Any) -> Any:
    """A copy of a state whose differentiable fields ask for their gradient."""
    copy = map_state(lambda field: field.detach().clone(), state)
    for field in differentiable(copy).values():
        field.requires_grad_()
    return copy


def trainable(memory: Memory[Any]) -> list[Tensor]:
    return [parameter for parameter in memory.parameters() if parameter.requires_grad]


def gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """The gradient of each tensor, 0 where the loss does not depend on it."""
    if not loss.requires_grad or not tensors:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(tensors, found, strict=True)
    ]


def weighted(y: Tensor, seed: int = 5) -> Tensor:
    """A loss that tells every output from every other."""
    generator = torch.Generator().manual_seed(seed)
    return (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def assert_same_state(actual: AnyState, expected: AnyState, tolerance: float) -> None:
    """Equal fields: integers and Booleans exactly, numbers within the tolerance."""
    assert type(actual) is type(expected)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, tolerance)
