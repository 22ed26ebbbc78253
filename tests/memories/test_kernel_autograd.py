"""Kernels under torch's machinery: what they go along with, and what they refuse by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from relagent.memories import Memory, kernels, make_memory
from relagent.memories.kernels.sequence import BatchedGradientError, SecondDerivativeError
from tests.memories.equality import KERNELS, problem

every_kernel = pytest.mark.parametrize("name", [*KERNELS, "sab"])


def double(name: str) -> Memory:  # type: ignore[type-arg]  # of any state
    torch.manual_seed(0)
    return make_memory(name, 3, 16).double()


def test_a_second_backward_pass_repeats_the_first_and_a_second_derivative_raises() -> None:
    torch.manual_seed(0)
    memory = make_memory("rel", 3, 16).double()
    x, state, starts = problem(memory, steps=9, rows=3, before=4, chance=0.1)
    parameters = list(memory.parameters())
    y, _ = memory.unroll(x, state, starts)
    loss = y.square().sum()
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    (gradient, *_) = torch.autograd.grad(loss, parameters, create_graph=True)
    assert torch.equal(gradient, first[0])
    with pytest.raises(SecondDerivativeError, match=r"kernels.disable\(\)"):
        torch.autograd.backward(gradient.sum())


@every_kernel
def test_no_second_derivative_is_silently_zero(name: str) -> None:
    """Whatever it is taken with respect to: a penalty on a gradient reaches all of them."""
    memory = double(name)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def penalised() -> Tensor:
        y, _ = memory.unroll(x, memory.initial_state(2))
        y = scale * y
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return cast(Tensor, y.sum() + gradient.norm())

    parameters: list[Tensor] = [*memory.parameters()]
    for asked in ([x], [scale], parameters, *([p] for p in parameters)):
        with pytest.raises(SecondDerivativeError):
            torch.autograd.grad(penalised(), asked, allow_unused=True)
        with kernels.disable():
            torch.autograd.grad(penalised(), asked, allow_unused=True)


@every_kernel
def test_gradients_in_batches_are_refused_by_name(name: str) -> None:
    memory = double(name)
    x = torch.randn(3, 2, 3, dtype=torch.float64)

    def jacobian(vectorize: bool) -> Tensor:
        def outputs(x: Tensor) -> Tensor:
            return memory.unroll(x, memory.initial_state(2))[0].sum(dim=0)

        found = torch.autograd.functional.jacobian(outputs, x, vectorize=vectorize)
        assert isinstance(found, Tensor)
        return found

    with pytest.raises(BatchedGradientError, match=r"kernels.disable\(\)"):
        jacobian(vectorize=True)
    with kernels.disable():
        expected = jacobian(vectorize=True)
    torch.testing.assert_close(jacobian(vectorize=False), expected)


@every_kernel
def test_a_replaced_method_is_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = double(name)
    x, state, starts = problem(memory, steps=3, rows=2, before=2, chance=0.2)
    reset, seen = memory.reset, []

    def counted(*arguments: Any) -> Any:
        seen.append(1)
        return reset(*arguments)

    monkeypatch.setattr(memory, "reset", counted)
    memory.unroll(x, state, starts)
    assert len(seen) == 3


def test_a_compiled_model_runs_kernels_as_they_are() -> None:
    """In a process where no kernel ran before: all that torch.compile could look into is there."""
    code = (
        "import warnings; warnings.simplefilter('error', UserWarning)\n"
        "import torch; from relagent.memories import make_memory\n"
        "memory = make_memory('rel', 3, 16)\n"
        "x, state = torch.randn(4, 2, 3), memory.initial_state(2)\n"
        "compiled = torch.compile(memory, backend='eager')\n"
        "y, _ = compiled(x, state)\n"
        "assert y.grad_fn.name() == '_SequenceBackward', y.grad_fn\n"
        "assert torch.equal(y, memory(x, state)[0])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@every_kernel
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_computes_the_same_gradient(name: str, reentrant: bool) -> None:
    memory = double(name)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)

    def outputs(x: Tensor) -> Tensor:
        return memory.unroll(x, memory.initial_state(2))[0]

    leaves = [x, *memory.parameters()]
    outputs(x).square().sum().backward()
    expected = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    checkpoint(outputs, x, use_reentrant=reentrant).square().sum().backward()
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert (leaf.grad is None) == (gradient is None)
        assert gradient is None or (leaf.grad is not None and torch.equal(leaf.grad, gradient))


def test_a_module_that_compiles_its_calls_keeps_its_kernel() -> None:
    memory = double("rel")
    memory.compile(backend="eager")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    y, _ = memory.unroll(x, memory.initial_state(2))
    assert y.grad_fn is not None and y.grad_fn.name() == "_SequenceBackward"


def test_what_is_traced_is_the_definition_or_refused() -> None:
    """A graph in which the kernel's results are constants would be wrong without a word."""
    memory = double("lstm")

    def outputs(x: Tensor) -> Tensor:
        return memory.step(x, memory.initial_state(2))[0]

    def unrolled(x: Tensor) -> Tensor:
        return memory.unroll(x, memory.initial_state(2))[0]

    one, other = torch.randn(2, 2, 3, dtype=torch.float64)
    graph = make_fx(outputs)(one)
    torch.testing.assert_close(graph(other), outputs(other))
    with pytest.raises(Exception, match="data-dependent"):
        make_fx(unrolled)(one[None])
