"""How a kernel is held against its definition: values, gradients, final state, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from relagent.memories import (
    MEMORIES,
    AnyState,
    Memory,
    MemRNN,
    RelRNN,
    kernels,
    make_memory,
    map_state,
)

KERNELS = ["lstm", "gru", "goru", "rel", "mem", "rel-rnn", "mem-rnn", "rnn", "orth-rnn", "exp-rnn"]
ATTENTIVE = ["rel", "mem", "rel-rnn", "mem-rnn"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
DTYPES = list(TOLERANCE)


@st.composite
def memories(draw: st.DrawFn, dtype: torch.dtype, names: list[str] = KERNELS) -> Memory[Any]:
    """Any memory that has a kernel, of any option, with random parameters."""
    name = draw(st.sampled_from(names))
    options: dict[str, Any] = {}
    if name in ATTENTIVE:
        options["combine"] = draw(st.sampled_from(["sum", "mean"]))
    if name.startswith("rel"):
        options["nu"] = draw(st.integers(1, 5))
        options["rho"] = draw(st.integers(0, 4))
    if name.endswith("rnn"):
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu", "modrelu"]))
    torch.manual_seed(draw(st.integers(0, 1000)))
    width = draw(st.sampled_from([2, 16, 64] if name == "goru" else [1, 5, 16, 33, 80]))
    memory = make_memory(name, draw(st.integers(1, 5)), width, **options)
    return shaken(memory).to(dtype)


def shaken(memory: Memory[Any]) -> Memory[Any]:
    """Leave no accidental 0 or 1 among the parameters."""
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        if isinstance(memory, (RelRNN, MemRNN)):  # ReLU networks that grow make no comparison
            memory.cell.recurrent_weight.mul_(0.3)
    return memory


def problem(
    memory: Memory[Any], steps: int, rows: int, before: int, chance: float
) -> tuple[Tensor, AnyState, Tensor]:
    """Random x, a state that ``before`` steps have filled, and random episode starts."""
    like = next(memory.parameters())

    def sequence(length: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(length, rows, memory.input_size, dtype=like.dtype)
        return x.to(like.device), (torch.rand(length, rows) < chance).to(like.device)

    state = memory.initial_state(rows)
    if before:
        x, starts = sequence(before)
        with torch.no_grad(), kernels.disable():
            _, state = memory.unroll(x, state, starts)
    return (*sequence(steps)[:1], state, sequence(steps)[1])


@contextmanager
def only_by_kernels() -> Iterator[None]:
    """Fail where a sequence is computed by a definition: it would be compared with itself."""

    def refused(memory: Memory[Any], *_: Any) -> Any:
        raise AssertionError(f"{type(memory).__name__} was computed by its definition")

    with pytest.MonkeyPatch.context() as patch:
        for kind in {base for memory in MEMORIES.values() for base in memory.__mro__}:
            if "unroll_definition" in vars(kind):
                patch.setattr(kind, "unroll_definition", refused)
        yield


def occupied(state: AnyState) -> Tensor | None:
    if hasattr(state, "occupied"):
        return cast(Tensor, state.occupied)
    return cast(Tensor, state.ages) >= 0 if hasattr(state, "ages") else None


def everything(
    memory: Memory[Any], x: Tensor, before: AnyState, starts: Tensor
) -> dict[str, Tensor]:
    """Outputs, final state, and the gradients of all that has one, by name."""
    memory.zero_grad()
    x = x.detach().clone().requires_grad_()
    state: Any = map_state(
        lambda t: t.detach().clone().requires_grad_(t.is_floating_point()), before
    )
    y, after = memory.unroll(x, state, starts)
    found = {"y": y, **{f"after.{k}": v for k, v in zip(after._fields, after, strict=True)}}
    generator = torch.Generator().manual_seed(0)
    loss = x.new_zeros(())
    for name, value in found.items():
        if not value.is_floating_point() or name == "after.scores":
            continue
        weight = torch.randn(value.shape, generator=generator, dtype=x.dtype).to(x.device)
        if name == "after.c":  # a gradient in another order of memory
            weight = weight.T.contiguous().T
        if name == "after.states":  # an empty slot holds nothing that could have a gradient
            weight = weight * cast(Tensor, occupied(after)).unsqueeze(2)
        loss = loss + (value * weight).sum()
    torch.autograd.backward(loss)
    leaves = {"x": x, **dict(memory.named_parameters())}
    leaves |= {f"before.{k}": v for k, v in zip(state._fields, state, strict=True)}
    for name, leaf in leaves.items():
        if leaf.is_floating_point() and name != "before.scores":
            found[f"d {name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {name: value.detach() for name, value in found.items()}


def assert_same(
    kernel: dict[str, Tensor],
    definition: dict[str, Tensor],
    values: float | None = None,
    gradients: float | None = None,
) -> None:
    """Equal integers and Booleans, and numbers within the tolerances (default: the dtype's)."""
    for name, expected in definition.items():
        found = kernel[name]
        assert found.shape == expected.shape, name
        if not expected.is_floating_point():
            assert torch.equal(found, expected), name
        elif expected.numel():
            error = (found - expected).abs().max() / (1 + expected.abs().max())
            tolerance = gradients if name.startswith("d ") else values
            assert error <= (tolerance or TOLERANCE[expected.dtype]), f"{name}: {error}"


def check_reset(
    memory: Memory[Any], x: Tensor, state: AnyState, starts: Tensor, poison: float
) -> None:
    """Begin episodes in rows 1 and 2: nothing before has any influence, not even ``poison``."""
    starts[0, 1:3] = True
    poisoned = map_state(
        lambda t: t.index_fill(0, torch.tensor([1, 2]), poison) if t.is_floating_point() else t,
        state,
    )
    clean, dirty = (everything(memory, x, s, starts) for s in (state, poisoned))
    for found, expected in zip(dirty.values(), clean.values(), strict=True):
        assert torch.equal(found, expected)
    for gradient in (value for key, value in dirty.items() if key.startswith("d before")):
        assert (gradient[1:3] == 0).all()


def spread_out(memory: Memory[Any]) -> None:
    """Let no parameter lie in one piece; the values stay."""
    for parameter in memory.parameters():
        data = parameter.data
        parameter.data = torch.stack([data, torch.full_like(data, torch.nan)], dim=-1)[..., 0]
        assert data.numel() == 1 or not parameter.is_contiguous()
