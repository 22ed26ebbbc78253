"""The recurrent memories, fused, on the CPU: loops compiled by numba.

Importing this module registers the kernels (and loads numba).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from relagent.memories.kernels import layouts, recurrent, register
from relagent.memories.kernels.attention import BLOCK
from relagent.memories.kernels.native import as_array, over_rows
from relagent.memories.kernels.product import PANEL, panels
from relagent.memories.kernels.records import (
    Carried,
    Gradients,
    HandedOn,
    Plan,
    Scratch,
    Trail,
    Weights,
)
from relagent.memories.kernels.sab import unroll_sab
from relagent.memories.kernels.sequence import Parameters, Pass
from relagent.memories.kernels.unroll import register_all


def _scratch(y: Any, slots: int) -> Any:
    """Return room to work in, for y [T, B, n] and so many slots of the history."""
    T, B, n = y.shape
    powers = slots if T > 1 else 0
    vectors = np.empty((5, B, n), y.dtype)
    return Scratch(
        np.empty((B, BLOCK, n), y.dtype),
        np.empty((B, slots), y.dtype),
        np.empty((B, slots), np.int32),
        np.empty((B, powers, n), y.dtype),
        np.empty((B, powers), np.bool_),
        *vectors,
    )


def _laid_out(parameters: Parameters) -> Weights:
    """Return the weights as the forward pass reads them."""
    known = layouts() if isinstance(parameters.recurrent, nn.Parameter) else None
    key = tuple(parameter.data_ptr() for parameter in parameters)
    if known is not None and key in known:
        return cast(Weights, known[key])
    tensors = Weights(
        input=panels(parameters.input.t()),
        recurrent=panels(torch.cat([parameters.recurrent, parameters.query]).t()),
        key=panels(parameters.key.t()),
        bias=torch.cat([parameters.bias, parameters.bias.new_zeros(len(parameters.query))]),
        energy=parameters.energy,
        threshold=parameters.threshold,
    )
    weights = Weights(*(as_array(tensor.contiguous()) for tensor in tensors))
    if known is not None:
        known[key] = weights
    return weights


class _Numba:
    """The :class:`~relagent.memories.kernels.sequence.Backend` of compiled loops over rows."""

    def width(self, n: int) -> int:
        return n + -n % PANEL

    def pays(self, plan: Plan, steps: int, n: int) -> bool:
        return True

    def forward(self, sequence: Pass, x: Tensor, after: HandedOn) -> None:
        plan, parameters, starts, before, trail, y, keyed = sequence
        T, B, features = x.shape
        incoming, n = before.states.shape[1:]
        columns = trail.gates.shape[2]
        keys = 0 if keyed else incoming
        work = 2.0 * T * B * (columns + n) * (features + n) + 2.0 * B * keys * n * n
        over_rows(
            recurrent.forward,
            B,
            work,
            plan,
            _laid_out(parameters),
            as_array(x),
            starts.numpy(),
            Carried(*map(as_array, before)),
            HandedOn(*map(as_array, after)),
            Trail(*map(as_array, trail)),
            y.numpy(),
            keyed,
            _scratch(y.numpy(), trail.history.shape[1]),
        )

    def backward(self, sequence: Pass, d_y: Tensor, gradients: Gradients) -> None:
        plan, parameters, starts, before, trail, y, _ = sequence
        T, B, n = y.shape
        joint = torch.cat([parameters.recurrent, parameters.query])
        weights = Weights(
            input=parameters.input,
            recurrent=panels(joint),
            key=panels(parameters.key),
            bias=parameters.bias,
            energy=parameters.energy,
            threshold=parameters.threshold,
        )
        over_rows(
            recurrent.backward,
            B,
            4.0 * T * B * len(joint) * n,
            plan,
            Weights(*(as_array(w.contiguous()) for w in weights)),
            starts.numpy(),
            Carried(*map(as_array, before)),
            Trail(*map(as_array, trail)),
            y.numpy(),
            as_array(d_y),
            Gradients(*map(as_array, gradients)),
            _scratch(y.numpy(), trail.history.shape[1]),
        )


register_all("cpu", _Numba())
register("relagent.memories.sab.SAB", "cpu", unroll_sab)
