"""The recurrent memories, fused, on a GPU: loops written in Triton.

Importing this module registers the kernels (and loads Triton); it raises ``ImportError`` where
Triton cannot work.

What runs where: on a CPU, the loops that numba compiles; on an NVIDIA GPU (torch's device type
``cuda``), these, in float32 and float64; the definition, step by step, where a device's compiler is
missing, for other numbers, under autocast, and for all other memories. A kernel is compiled when
it is first needed, for each width, number of slots and kind of cell, and Triton keeps it on disk.

On any machine the tests hold these kernels against the definition in Triton's interpreter, and
compile them for GPUs; where there is a GPU, they compare them there too. What was measured on one
is in benchmarks/README.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from relagent.memories.kernels import triton_recurrent
from relagent.memories.kernels.records import (
    FULL,
    MODRELU,
    PLAIN,
    RELEVANCY,
    RELU,
    TANH,
    Carried,
    Gradients,
    HandedOn,
    Plan,
    Trail,
)
from relagent.memories.kernels.sequence import Pass
from relagent.memories.kernels.triton_parts import fill
from relagent.memories.kernels.triton_recurrent import Given, Matrices, Scratch
from relagent.memories.kernels.unroll import register_all

ROWS = 16
"""Rows of a program: a tile of a matrix product has as many."""
COLUMNS = 32
"""Columns that are worked on at a time, if there are as many."""
SLOTS = 4
"""Remembered states that are looked at together, if there are as many."""
DEPTH = 32
"""Terms of a matrix product that are in shared memory together, if there are as many."""


def _gates(plan: Plan) -> int:
    """Return how many columns of a product belong to a unit, those of attention left out."""
    return 1 if plan.cell in (TANH, RELU, MODRELU) else 4


def constants(plan: Plan, n: int, incoming: int) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    kappa = incoming if plan.remember == RELEVANCY else 1
    slots = SLOTS if plan.remember == FULL else min(SLOTS, triton.next_power_of_2(kappa))
    return {
        "REMEMBER": plan.remember,
        "CELL": plan.cell,
        "G": _gates(plan),
        "HALVE": plan.halve,
        "RHO": plan.rho,
        "KAPPA": kappa,
        "N": n,
        "ROWS": ROWS,
        "C": min(COLUMNS, n),
        "S": slots,
        "D": min(DEPTH, n),
    }


MOST_WEIGHTS = {PLAIN: 400_000, RELEVANCY: 1_300_000}
"""Weights that a step may read, by what is remembered.

Each program reads all of them in every step, so that its time grows with them. Beyond, the
definition is faster: each of its operations has the whole GPU, and takes as long for few weights.
(FULL has no limit: the definition needs memory in proportion to T².)
"""

OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}
"""One stage: nothing is loaded before what stands above it in the program has been done."""


def _launch(kernel: Any, plan: Plan, y: Tensor, incoming: int, *arguments: Any) -> None:
    """Run a kernel on enough programs for y [T, B, n], with the sizes behind its arguments."""
    T, B, n = y.shape
    width = incoming if plan.remember == RELEVANCY else incoming + T
    with torch.cuda.device(y.device) if y.is_cuda else nullcontext():
        kernel[(triton.cdiv(B, ROWS),)](
            *arguments, T, B, incoming, width, **constants(plan, n, incoming), **OPTIONS
        )


def _places(starts: Tensor, before: Carried) -> Tensor:
    """Return the place of each state that comes in, -1 where it is empty, [B, L] int32."""
    places = torch.arange(before.ages.shape[1], dtype=torch.int32, device=before.ages.device)
    return torch.where((before.ages >= 0) & ~starts[0][:, None], places, -1)


def _hand_on(before: Carried, after: HandedOn, trail: Trail) -> None:
    """Write what is remembered at the end (RELEVANCY), by the places of the last step."""
    steps = len(trail.places)
    places = trail.places[-1].long()
    occupied, at = places >= 0, places.clamp(min=0)
    made = torch.arange(steps - 1, -1, -1, device=places.device).expand(len(places), steps)
    ages = torch.cat([before.ages + steps, made], dim=1)
    after.ages.copy_(torch.where(occupied, ages.gather(1, at), -1))
    states = trail.history.gather(1, at.unsqueeze(2).expand_as(after.states))
    after.states.copy_(torch.where(occupied.unsqueeze(2), states, 0))


class Triton:
    """The :class:`~relagent.memories.kernels.sequence.Backend` of loops written in Triton."""

    def width(self, n: int) -> int:
        """See :class:`Backend`: blocks of columns are powers of 2."""
        return max(16, triton.next_power_of_2(n)) if n <= COLUMNS else n + -n % COLUMNS

    def pays(self, plan: Plan, steps: int, n: int) -> bool:
        """See :class:`Backend`: a single step of a plain memory is few operations anyway."""
        if plan.remember == FULL:
            return True
        if plan.remember == PLAIN:
            return steps > 1 and _gates(plan) * n * n <= MOST_WEIGHTS[PLAIN]
        return (_gates(plan) + 2) * n * n <= MOST_WEIGHTS[RELEVANCY]

    def forward(self, sequence: Pass, x: Tensor, after: HandedOn) -> None:
        """See :class:`Backend`."""
        plan, parameters, starts, before, trail, y, keyed = sequence
        T, B, _ = y.shape
        incoming, gates = before.states.shape[1], len(parameters.bias)
        carried = _places(starts, before)
        occupied = carried >= 0
        first = carried.new_zeros(0)
        scores = after.scores
        if plan.remember != PLAIN:
            states = torch.where(occupied.unsqueeze(2), before.states, 0)
            trail.history[:, :incoming] = states
            if not keyed:
                trail.keys[:, :incoming] = states @ parameters.key.t()
            scores[:, :incoming] = torch.where(occupied, before.scores, 0)
            scores[:, incoming:] = 0
        if plan.remember == FULL:
            places = torch.where(occupied, carried, incoming)
            first = torch.nn.functional.pad(places, (0, 1), value=incoming).amin(dim=1)
        trail.s[0] = torch.where(starts[0][:, None], 0, before.s)
        inputs = trail.gates.view(T * B, -1)[:, :gates]
        torch.addmm(parameters.bias, x.view(T * B, -1), parameters.input.t(), out=inputs)
        joint = torch.cat([parameters.recurrent, parameters.query])
        _launch(
            triton_recurrent.forward,
            plan,
            y,
            incoming,
            Given(starts.view(torch.uint8), carried, first, before.c),
            Matrices(
                joint.t().contiguous(),
                parameters.key.t().contiguous(),
                parameters.energy,
                parameters.threshold,
            ),
            scores,
            torch.empty_like(scores),
            trail,
            y,
        )
        if plan.remember == RELEVANCY:
            _hand_on(before, after, trail)

    def backward(self, sequence: Pass, d_y: Tensor, gradients: Gradients) -> None:
        """See :class:`Backend`."""
        plan, parameters, starts, before, trail, y, _ = sequence
        T, B, _ = y.shape
        incoming = before.states.shape[1]
        width = incoming if plan.remember == RELEVANCY else incoming + T
        carried = _places(starts, before)
        _launch(
            triton_recurrent.backward,
            plan,
            y,
            incoming,
            Given(starts.view(torch.uint8), carried, carried.new_zeros(0), before.c),
            Matrices(
                torch.cat([parameters.recurrent, parameters.query]),
                parameters.key,
                parameters.energy,
                parameters.threshold,
            ),
            Scratch(y.new_empty(B, width), y.new_empty(B, width)),
            trail,
            y,
            d_y,
            gradients,
        )
        torch.sum(trail.gates, dim=0, out=gradients.bias)


def check() -> None:
    """Raise ``ImportError`` where there is a GPU for which Triton cannot compile, or not at all.

    It may be too old, or there is no C compiler, which Triton needs. AMD's GPUs bear the name of
    ``cuda`` too; nobody has tried the kernels there.
    """
    if not torch.cuda.is_available():
        return
    if torch.version.hip is not None:
        raise ImportError("these kernels are for NVIDIA's GPUs: the definition runs instead")
    kernel: Any = fill
    try:
        ones = torch.zeros(16, device="cuda")
        kernel[(1,)](ones, 1.0, 16)
        works = bool((ones == 1).all())
    except Exception as error:
        raise ImportError(f"Triton does not work here: {error}") from error
    if not works:
        raise ImportError("Triton does not work here: it computes something else")


check()
register_all("cuda", Triton())
