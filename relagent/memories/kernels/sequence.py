"""The recurrence over a whole sequence as one autograd function, whatever loops compute it.

A backend runs the two loops, forward and backward, on one kind of device; here is what they share:
what is kept for the gradient, the parameters' gradients, and widths that the loops do not take.
Acting, which needs no gradient, calls the forward loop directly. A second derivative is an error.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from relagent.errors import RelagentError
from relagent.memories.kernels import layouts
from relagent.memories.kernels.records import (
    FULL,
    PLAIN,
    RELEVANCY,
    Carried,
    Gradients,
    HandedOn,
    Plan,
    Trail,
)


class SecondDerivativeError(RelagentError):
    """A derivative of a kernel's gradient was asked for."""


class BatchedGradientError(RelagentError):
    """Several gradients of a kernel were asked for in one go."""


class Parameters(NamedTuple):
    """The parameters of a memory as its kernel takes them; those that it lacks are empty."""

    input: Tensor
    """[G·n, F] W."""
    recurrent: Tensor
    """[G·n, n] R."""
    bias: Tensor
    """[G·n]."""
    query: Tensor
    """[n, n] W_a."""
    key: Tensor
    """[n, n] U_a."""
    energy: Tensor
    """[n] v_a."""
    threshold: Tensor
    """[n] bias of modReLU."""


class Pass(NamedTuple):
    """What both loops of a backend go through. Tensors are contiguous and on one device."""

    plan: Plan
    parameters: Parameters
    starts: Tensor
    """[T, B] bool, where episodes start."""
    before: Carried
    trail: Trail
    y: Tensor
    """[T, B, n]."""
    keyed: bool
    """Whether the trail holds the keys of the incoming states already."""


class Backend(Protocol):
    """The loops over time, for one kind of device."""

    def width(self, n: int) -> int:
        """Return the smallest number of units, at least n, that the loops can work with."""

    def pays(self, plan: Plan, steps: int, n: int) -> bool:
        """Whether the loops are faster than the definition, for n units."""

    def forward(self, sequence: Pass, x: Tensor, after: HandedOn) -> None:
        """Read x [T, B, F]; write ``after``, y and the trail, which hold nothing yet but keys."""

    def backward(self, sequence: Pass, d_y: Tensor, gradients: Gradients) -> None:
        """Write ``gradients``, and over ``trail.gates`` their gradient, from that of y."""


def _forward(
    backend: Backend,
    plan: Plan,
    x: Tensor,
    starts: Tensor,
    before: Carried,
    parameters: Parameters,
    keys: Tensor | None = None,
) -> tuple[Pass, HandedOn]:
    """Allocate, and run the loop; ``keys`` are those of the incoming states, if known."""
    T, B, _ = x.shape
    incoming, n = before.states.shape[1:]
    looks = plan.remember != PLAIN
    slots = incoming + T
    int32 = torch.int32
    trail = Trail(
        s=x.new_empty(T, B, n),
        gates=x.new_empty(T, B, len(parameters.bias) + len(parameters.query)),
        cells=x.new_empty(T, B, before.c.shape[1]),
        history=x.new_empty(B, slots, n),
        keys=x.new_empty(B, slots if looks else 0, n),
        places=x.new_empty(T, B, incoming if plan.remember == RELEVANCY else 0, dtype=int32),
        first=x.new_empty(T, B if plan.remember == FULL else 0, dtype=int32),
        log_total=x.new_empty(T, B if looks else 0),
    )
    if keys is not None:
        trail.keys[:, :incoming] = keys
    y = x.new_empty(T, B, n)
    sequence = Pass(plan, parameters, starts, before, trail, y, keys is not None)
    handed_on = incoming if plan.remember == RELEVANCY else 0
    after = HandedOn(
        states=x.new_empty(B, handed_on, n),
        scores=x.new_empty(B, slots if plan.remember == FULL else incoming),
        ages=before.ages.new_empty(B, handed_on),
    )
    backend.forward(sequence, x, after)
    return sequence, after


def _outputs(sequence: Pass, after: HandedOn, differentiable: bool = False) -> tuple[Tensor, ...]:
    """Return y, the last cell, and the states, scores, ages and occupation at the end."""
    trail, y = sequence.trail, sequence.y
    last, occupied = after.states, after.ages
    if sequence.plan.remember == FULL:
        first = trail.first[-1]
        slots = torch.arange(int(first.min()), trail.history.shape[1], device=y.device)
        occupied = slots >= first[:, None]
        last = trail.history[:, -len(slots) :]
        if len(y) > 1 or differentiable:  # otherwise no episode but the last left anything there
            last = torch.where(occupied.unsqueeze(2), last, 0)
    return y, trail.cells[-1].clone(), last, after.scores, after.ages, occupied


class _Sequence(torch.autograd.Function):
    """The recurrence over a sequence, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        plan: Plan,
        starts: Tensor,
        scores: Tensor,
        ages: Tensor,
        x: Tensor,
        s: Tensor,
        c: Tensor,
        states: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        before = Carried(s, c, states, scores, ages)
        sequence, after = _forward(backend, plan, x, starts, before, Parameters(*parameters))
        ctx.backend, ctx.plan, ctx.consumed = backend, plan, False
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, starts, *before, *parameters, *sequence.trail, sequence.y)
        outputs = _outputs(sequence, after, differentiable=True)
        ctx.mark_non_differentiable(*outputs[3:])
        return outputs

    @staticmethod
    def backward(
        ctx: Any,
        d_y: Tensor | None,
        d_cell: Tensor | None,
        d_last: Tensor | None,
        *_: None,
    ) -> tuple[Tensor | None, ...]:
        one_by_one(d_y, d_cell, d_last)
        saved = ctx.saved_tensors  # asked for once: checkpointing unpacks once
        with torch.no_grad():
            gradients = _Sequence.gradients(ctx, saved, d_y, d_cell, d_last)
        return once((saved[-1], d_y, d_cell, d_last), gradients)

    @staticmethod
    def gradients(
        ctx: Any, saved: Any, d_y: Tensor | None, d_cell: Tensor | None, d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of what :meth:`forward` took, in its order."""
        backend: Backend = ctx.backend
        plan: Plan = ctx.plan
        saved = list(saved)
        x, starts = saved[:2]
        before = Carried(*saved[2:7])
        parameters = Parameters(*saved[7:14])
        trail, y = Trail(*saved[14:-1]), saved[-1]
        sequence = Pass(plan, parameters, starts, before, trail, y, keyed=True)
        if ctx.consumed:  # an earlier backward pass over the same graph has written to the trail
            sequence, _ = _forward(backend, plan, x, starts, before, parameters)
        trail, y = sequence.trail, sequence.y
        ctx.consumed = True
        T, B, n = y.shape
        looks = plan.remember != PLAIN
        gates = len(parameters.bias)

        d_y = torch.zeros_like(y) if d_y is None else d_y.contiguous()
        d_history = torch.zeros_like(trail.history) if looks else x.new_zeros(0, 0, n)
        if looks and d_last is not None:
            _scatter_last(plan, trail, d_last, d_history)
        gradients = Gradients(
            bias=x.new_zeros(B, trail.gates.shape[2]),
            history=d_history,
            keys=torch.zeros_like(trail.keys),
            s=x.new_zeros(B, n),
            c=torch.zeros_like(before.c)
            if d_cell is None
            else d_cell.clone(memory_format=torch.contiguous_format),
            energy=x.new_zeros(B, n),
            threshold=x.new_zeros(B, n),
        )
        backend.backward(sequence, d_y, gradients)

        # The parameters' gradients, each as one product over all steps and rows.
        d_columns = trail.gates.view(T * B, -1)
        d_gates = d_columns[:, :gates]
        d_joint = (trail.s.view(T * B, n).T @ d_columns).T
        d_states = d_key = None
        if looks:
            incoming = before.states.shape[1]
            keys_in = gradients.keys[:, :incoming]
            d_states = d_history[:, :incoming] + keys_in @ parameters.key
            d_key = gradients.keys.view(-1, n).T @ trail.history.view(-1, n)
        needs = dict(zip(Parameters._fields, ctx.needs_input_grad[9:], strict=True))
        return (
            *(None, None, None, None, None),
            (d_gates @ parameters.input).view_as(x) if ctx.needs_input_grad[5] else None,
            gradients.s,
            gradients.c,
            d_states,
            (x.reshape(T * B, -1).T @ d_gates).T,
            d_joint[:gates],
            gradients.bias.sum(dim=0)[:gates],
            d_joint[gates:] if looks else None,
            d_key,
            gradients.energy.sum(dim=0) if looks else None,
            gradients.threshold.sum(dim=0) if needs["threshold"] else None,
        )


def one_by_one(*gradients: Tensor | None) -> None:
    """Check that the gradients of outputs are those of one number, not of a batch of numbers.

    Raises:
        BatchedGradientError: they are (``is_grads_batched``, ``jacobian(vectorize=True)``).
    """
    batched = torch._C._functorch.is_legacy_batchedtensor
    if any(gradient is not None and batched(gradient) for gradient in gradients):
        raise BatchedGradientError(
            "the fused kernels give one gradient at a time: compute batches of them inside `with "
            "relagent.memories.kernels.disable():`"
        )


def once(
    sources: tuple[Tensor | None, ...], gradients: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Return gradients that refuse to be differentiated once more, where somebody might.

    Without this, a second derivative would leave out what goes through the memory.

    Args:
        sources: an output of the function, behind which lies all that it depends on, and the
            gradients of its outputs: these decide about the gradients of what it took.
        gradients: of what the function took.
    """
    if not torch.is_grad_enabled():
        return gradients
    return _Final.apply(len(sources), *sources, *gradients)  # type: ignore[no-any-return,no-untyped-call]  # torch's


class _Final(torch.autograd.Function):
    """Passes gradients on, and refuses to differentiate them once more."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """Pass on all but the first ``count``, which are what they may be differentiated by."""
        return tuple(None if g is None else g.view_as(g) for g in tensors[count:])

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        raise SecondDerivativeError(
            "the fused kernels give no second derivatives: compute both inside `with "
            "relagent.memories.kernels.disable():`"
        )


def _scatter_last(plan: Plan, trail: Trail, d_last: Tensor, d_history: Tensor) -> None:
    """Give the gradient of what is remembered at the end to the history that it was read from."""
    if plan.remember == RELEVANCY:
        places = trail.places[-1].long().unsqueeze(2).expand_as(d_last)
        d_history.scatter_add_(1, places.clamp(min=0), torch.where(places >= 0, d_last, 0))
    else:
        kept, slots = d_last.shape[1], d_history.shape[1]
        places = torch.arange(slots - kept, slots, device=d_last.device)
        occupied = (places >= trail.first[-1][:, None]).unsqueeze(2)
        d_history[:, slots - kept :] += torch.where(occupied, d_last, 0)


def _run(
    backend: Backend, plan: Plan, x: Tensor, starts: Tensor, before: Carried, parameters: Parameters
) -> tuple[Tensor, ...]:
    """:func:`run` for a width that the backend takes."""
    remembered = before.states
    x, before = x.contiguous(), Carried(*(tensor.contiguous() for tensor in before))
    starts = starts.contiguous()
    parameters = Parameters(*(tensor.contiguous() for tensor in parameters))
    differentiable = (x, before.s, before.c, before.states, *parameters)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable):
        return _Sequence.apply(  # type: ignore[no-any-return,no-untyped-call]  # torch's
            backend,
            plan,
            starts,
            before.scores,
            before.ages,
            *differentiable,
        )
    # A key that was made wider is not the memory's own, and others may come to stand in its place.
    own = plan.remember == FULL and len(x) == 1 and isinstance(parameters.key, nn.Parameter)
    if own and (known := layouts()) is not None:
        return _step(backend, plan, x, starts, before, parameters, remembered, known)
    return _outputs(*_forward(backend, plan, x, starts, before, parameters))


def _step(
    backend: Backend,
    plan: Plan,
    x: Tensor,
    starts: Tensor,
    before: Carried,
    parameters: Parameters,
    remembered: Tensor,
    known: dict[Any, Any],
) -> tuple[Tensor, ...]:
    """One step of full attention under constant weights: no key is computed twice.

    The keys of all that was ``remembered`` (``before.states``, as it came) would take longer than
    the rest of the step.
    """
    name = "keys", parameters.key.data_ptr()
    states, keys = known.get(name, (None, None))
    sequence, after = _forward(
        backend, plan, x, starts, before, parameters, keys if states is remembered else None
    )
    y, c, states, *rest = _outputs(sequence, after)
    known[name] = states, sequence.trail.keys[:, -states.shape[1] :]
    return y, c, states, *rest


def widened(parameters: Parameters, n: int, extra: int) -> Parameters:
    """Add ``extra`` units to n; every weight from and to them is 0, and so they stay 0."""
    pad = nn.functional.pad
    W, R, b, *rest = parameters
    gates = len(b) // n
    return Parameters(
        pad(W.view(gates, n, -1), (0, 0, 0, extra)).flatten(0, 1),
        pad(R.view(gates, n, n), (0, extra, 0, extra)).flatten(0, 1),
        pad(b.view(gates, n), (0, extra)).flatten(),
        *(pad(w, [0, extra] * (w.dim() if len(w) else w.dim() - 1)) for w in rest),
    )


def run(
    backend: Backend, plan: Plan, x: Tensor, starts: Tensor, before: Carried, parameters: Parameters
) -> tuple[Tensor, ...]:
    """Run a sequence of any width n.

    Args:
        backend: computes it.
        plan: what to compute.
        x: [T, B, F].
        starts: [T, B] bool; kept for the gradient, so nobody may write into it.
        before: the incoming state.
        parameters: of the memory.

    Returns:
        y [T, B, n], the last cell [B, n] (or [B, 0]), and of what is remembered at the end: the
        states [B, L', n], scores, ages (RELEVANCY) and, for FULL, which are occupied [B, L'].
    """
    n = before.s.shape[1]
    extra = backend.width(n) - n
    if extra == 0:
        return _run(backend, plan, x, starts, before, parameters)
    widths = (extra, extra if before.c.numel() else 0, extra, 0, 0)
    wide = Carried(*(nn.functional.pad(t, (0, e)) for t, e in zip(before, widths, strict=True)))
    y, c, states, *rest = _run(backend, plan, x, starts, wide, widened(parameters, n, extra))
    return y[..., :n], c[..., :n], states[..., :n], *rest
