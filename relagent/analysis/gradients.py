"""Gradients that reach the hidden states inside a memory, of any memory in the registry.

The hidden state h_t is what the recurrent cell hands to the rest of the step. A zero is added to it
there, and the derivative with respect to that zero is the total derivative with respect to h_t: of
everything that reads h_t afterwards, at this step or, through what is remembered, at later ones. An
LSTM's own cell state c_t is not part of h_t and is held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from relagent.errors import RelagentError
from relagent.memories import AnyState, Memory, map_state


class AnalysisInputError(RelagentError):
    """A request that the analysis cannot answer."""


UNRELATED = (
    "the loss is a constant of the outputs, it must be made of them: detach nothing on the way"
)


class Handles(NamedTuple):
    """An unrolled memory, with a handle on every hidden state."""

    outputs: Tensor
    """[T, B, H] what the memory returned: s_t of an attentive memory, h_t of a plain one."""
    hidden: Tensor
    """[T, B, H] the hidden states h_t."""
    handles: Tensor
    """[T, B, H] the zeros that were added to h_t: differentiate with respect to this leaf."""
    state: AnyState
    """The state after the last step."""


def unroll_with_handles(
    memory: Memory[Any],
    x: Tensor,
    state: AnyState | None = None,
    episode_starts: Tensor | None = None,
) -> Handles:
    """Unroll a memory by its definition, so that gradients can be taken at every h_t.

    Args:
        memory: any memory.
        x: [T, B, F].
        state: the state before the first step; ``None``: empty.
        episode_starts: [T, B] or ``None``, as in :meth:`Memory.unroll`.

    Raises:
        MemoryInputError: the shapes do not fit.
        AnalysisInputError: the memory has no module ``cell``, and no field of its state is its
            output.
    """
    state, starts = memory.check_sequence(x, state, episode_starts)
    handles = torch.zeros(*x.shape[:2], memory.hidden_size, device=x.device, dtype=x.dtype)
    handles.requires_grad_()
    outputs, hidden = [], []
    # A weight that is computed from its parameter, such as a rotation, is computed once.
    with torch.enable_grad(), parametrize.cached():
        for x_t, starts_t, handle in zip(x, starts, handles.unbind(), strict=True):
            y, h, state = _step(memory, x_t, memory.reset(state, starts_t), handle)
            outputs.append(y)
            hidden.append(h)
        return Handles(torch.stack(outputs), torch.stack(hidden), handles, state)


def _step(
    memory: Memory[Any], x: Tensor, state: AnyState, handle: Tensor
) -> tuple[Tensor, Tensor, AnyState]:
    """One step with ``handle`` added to h, wherever this memory makes it."""
    with added_to_output(getattr(memory, "cell", None), handle) as made:
        y, after = memory.step(x, state)
    if made:
        return y, made[-1], after
    # No cell was called: the output is h, and the state carries the same tensor.
    h = y + handle
    if not any(field is y for field in after) and any(field.numel() for field in after):
        raise AnalysisInputError(
            f"{type(memory).__name__} does not show where its hidden state is made: let step() "
            "return the very tensor that the state carries on, or make it in a module named cell"
        )
    return h, h, map_state(lambda field: h if field is y else field, after)


@contextmanager
def added_to_output(cell: nn.Module | None, handle: Tensor) -> Iterator[list[Tensor]]:
    """Add ``handle`` to every h that ``cell`` returns; yield the list of what it then returned."""
    made: list[Tensor] = []
    if cell is None:
        yield made
        return

    def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        h, *rest = output if isinstance(output, tuple) else (output,)
        made.append(h + handle)
        return (made[-1], *rest) if isinstance(output, tuple) else made[-1]

    hook = cell.register_forward_hook(add)
    try:
        yield made
    finally:
        hook.remove()


def jacobians(
    memory: Memory[Any], x: Tensor, episode_starts: Tensor | None = None, *, step: int = -1
) -> Tensor:
    """Return ds_T/dh_t for every t: the full Jacobians, for small sizes.

    Args:
        memory: any memory; ``memory.double()`` for ten digits and more.
        x: [T, B, F].
        episode_starts: [T, B] or ``None``.
        step: which output s to differentiate; the last by default.

    Returns:
        [T, B, H, H]; entry i, j is d s_T[i] / d h_t[j] (equation 6). Zero for t after ``step``.

    Raises:
        MemoryInputError: the shapes do not fit.
        AnalysisInputError: the sequence has no such step.
    """
    run = unroll_with_handles(memory, x, episode_starts=episode_starts)
    _check_step(step, len(x))
    rows = [_pull_back(run.outputs[step], row, run) for row in torch.eye(memory.hidden_size).to(x)]
    return torch.stack(rows, dim=2)


def jacobian_norms(
    memory: Memory[Any],
    x: Tensor,
    episode_starts: Tensor | None = None,
    *,
    step: int = -1,
    probes: int | None = None,
) -> Tensor:
    """Return the Frobenius norm ‖ds_T/dh_t‖ for every t, by vector-Jacobian products.

    Args:
        memory: any memory.
        x: [T, B, F]; T may be in the thousands.
        episode_starts: [T, B] or ``None``.
        step: which output s to differentiate; the last by default.
        probes: ``None`` sums the H rows and is exact; a number draws that many random vectors v of
            signs and averages ‖vᵀJ‖², whose expectation is ‖J‖² (Hutchinson 1990).

    Returns:
        [T, B].

    Raises:
        MemoryInputError: the shapes do not fit.
        AnalysisInputError: ``probes`` is not positive, or the sequence has no such step.
    """
    if probes is not None and probes < 1:
        raise AnalysisInputError(f"probes={probes}: pass at least 1, or None for the exact norm")
    run = unroll_with_handles(memory, x, episode_starts=episode_starts)
    _check_step(step, len(x))
    size = memory.hidden_size
    vectors = (
        torch.eye(size) if probes is None else torch.randint(0, 2, (probes, size)) * 2.0 - 1.0
    ).to(x)
    norms = torch.zeros_like(run.handles[..., 0])
    for vector in vectors:
        norms = norms.hypot(vector_norms(_pull_back(run.outputs[step], vector, run)))
    return norms if probes is None else norms / probes**0.5


def hidden_gradients(
    memory: Memory[Any],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    episode_starts: Tensor | None = None,
    *,
    state: AnyState | None = None,
) -> Tensor:
    """Return ∇_{h_t} L for every t.

    Args:
        memory: any memory.
        x: [T, B, F], what the memory reads (behind an encoder: the encoder's output).
        loss: from the outputs [T, B, H] to the scalar L; close over heads and targets.
        episode_starts: [T, B] or ``None``.
        state: the state before the first step; ``None``: empty.

    Returns:
        [T, B, H]; a row's gradients are of its own part of L.

    Raises:
        MemoryInputError: the shapes do not fit.
        AnalysisInputError: the loss is not a scalar, or does not hang on the outputs.
    """
    run = unroll_with_handles(memory, x, state, episode_starts)
    value = scalar_loss(loss, run.outputs)
    (gradient,) = torch.autograd.grad(value, run.handles, allow_unused=True)
    if gradient is None:
        raise AnalysisInputError(UNRELATED)
    return gradient


def scalar_loss(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """Return the loss of some outputs.

    Raises:
        AnalysisInputError: it is not a scalar that can be differentiated.
    """
    with torch.enable_grad():
        value = loss(outputs)
    if not isinstance(value, Tensor):
        raise AnalysisInputError(
            f"the loss is a {type(value).__name__}, it must be a tensor: compute it with torch"
        )
    if value.dim() != 0:
        raise AnalysisInputError(
            f"the loss has shape {list(value.shape)}, it must be a scalar: sum it over rows and "
            "steps"
        )
    if not value.requires_grad:
        raise AnalysisInputError(UNRELATED)
    return value


def gradient_norms(
    memory: Memory[Any],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    episode_starts: Tensor | None = None,
    *,
    state: AnyState | None = None,
) -> Tensor:
    """Return ‖∇_{h_t} L‖ [T, B] for every t (figure 3 of Kerg et al. 2020).

    Takes, and refuses, what :func:`hidden_gradients` does.
    """
    return vector_norms(hidden_gradients(memory, x, loss, episode_starts, state=state))


def vector_norms(vectors: Tensor) -> Tensor:
    """Return the Euclidean norms [..] of vectors [.., H], 0 for none but 0.

    A gradient may fall by a hundred powers of ten, and the squares of small numbers are 0 long
    before they are; so each vector is divided by its largest entry first.
    """
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1)
    norms: Tensor = (vectors / scale).norm(dim=-1) * scale[..., 0]
    return norms


def _check_step(step: int, steps: int) -> None:
    if not -steps <= step < steps:
        raise AnalysisInputError(f"step={step}: the sequence has {steps} steps, from 0 on")


def _pull_back(output: Tensor, vector: Tensor, run: Handles) -> Tensor:
    """Return vᵀ ds/dh_t [T, B, H] for s [B, H] and v [H]."""
    (gradient,) = torch.autograd.grad((output * vector).sum(), run.handles, retain_graph=True)
    return gradient
