"""The gradient of a self-attentive RNN, taken apart by its number of recurrent factors.

For ``MemRNN`` and ``RelRNN``: the explicit E and F matrices of Proposition 2 and the decomposition
of Proposition 1,

    ds_{t+k}/dh_t = Σ_{s=0..k} ξ̄_{0:k}(s),

where ξ̄_{0:k}(s) collects all paths from h_t to s_{t+k} that pass through the recurrence s times.
Nothing here is differentiated automatically, except φ itself. Times count from 1 as in the paper;
equation numbers are those of the appendix, read with the corrections of
``docs/appendix_misprints.md``. A sparse memory is the full one with α_{i,t} = 0 for what it forgot;
which states it remembers is held fixed, as its own gradient does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from relagent.analysis.attention_map import attention_matrix
from relagent.analysis.gradients import (
    AnalysisInputError,
    added_to_output,
    scalar_loss,
    unroll_with_handles,
)
from relagent.memories import Attention, Memory, MemRNN, RelRNN
from relagent.memories.cells import RNNCell

AttentiveRNN = MemRNN | RelRNN


def alpha_matrix(look: Attention, row: int = 0) -> Tensor:
    """Return α [T, T] of one row: entry t, i is the weight of h_i in the context of step t.

    Args:
        look: from :meth:`Memory.trace`.
        row: which row of the batch.
    """
    remembered = attention_matrix(look.weights[:, row], look.ages[:, row])
    return torch.from_numpy(np.nan_to_num(remembered)).to(look.weights)


@dataclass(frozen=True)
class Decomposition:
    """Partial derivatives along one sequence of T steps, and Propositions 1 and 2 made of them.

    Made by :func:`decompose`. Index 0 of every tensor is time 1.
    """

    alpha: Tensor
    """[T, T] attention; entry t, i is α_{i,t}."""
    ds_dh: Tensor
    """[T, T, n, n] entry t, i is the partial ∂s_t/∂h_i (Lemma 6)."""
    ds_ds: Tensor
    """[T, n, n] entry t is the partial ∂s_t/∂s_{t-1} (Lemma 5)."""
    J: Tensor
    """[T - 1, n, n] entry t is J_t = ∂h_{t+1}/∂s_t = diag(φ'(a_t)) V."""

    def E(self, t: int, k: int) -> Tensor:  # noqa: N802 - the paper's name
        """Return E_k^(t) = ∂s_{t+k}/∂h_t [n, n] (equations 43, 73 and 85)."""
        self._check(t, k)
        return self.ds_dh[t + k - 1, t - 1]

    def F(self, t: int, k: int, j: int) -> Tensor:  # noqa: N802 - the paper's name
        """Return F_{k,j}^(t) [n, n] for k > j (equations 44, 74-75 and 86).

        F_{k,j} = ∂s_{t+k}/∂h_{t+j+1} · J_{t+j} + 1[j = k-1] ∂s_{t+k}/∂s_{t+k-1}
        """
        self._check(t, k)
        if not 0 <= j < k:
            raise AnalysisInputError(f"F[{k}, {j}] is not defined: j must be in 0..{k - 1}")
        through_h = self.ds_dh[t + k - 1, t + j] @ self.J[t + j - 1]
        return through_h + self.ds_ds[t + k - 1] if j == k - 1 else through_h

    def xi_bar(self, t: int, k: int) -> Tensor:
        """Return ξ̄_{0:k}(s) for s = 0..k, [k + 1, n, n] (equation 42).

        By the last factor: ξ̄_{0:k}(s) = Σ_{j<k} F_{k,j} · ξ̄_{0:j}(s - 1), ξ̄_{0:k}(0) = E_k.
        """
        self._check(t, k)
        n = self.J.shape[-1]
        xi = self.J.new_zeros(k + 1, k + 1, n, n)  # [k', s, n, n]
        for end in range(k + 1):
            xi[end, 0] = self.E(t, end)
            for j in range(end):
                xi[end, 1:] += self.F(t, end, j) @ xi[j, :-1]
        return xi[k]

    def jacobian(self, t: int, k: int) -> Tensor:
        """Return ds_{t+k}/dh_t = Σ_s ξ̄_{0:k}(s) [n, n] (Proposition 1)."""
        return self.xi_bar(t, k).sum(dim=0)

    def _check(self, t: int, k: int) -> None:
        T = len(self.alpha)
        if t < 1 or k < 0 or t + k > T:
            raise AnalysisInputError(
                f"t={t}, k={k} is outside the sequence: 1 <= t and t + k <= {T} must hold"
            )


def decompose(memory: AttentiveRNN, x: Tensor) -> Decomposition:
    """Return the partial derivatives of a self-attentive RNN along one sequence.

    Args:
        memory: ``MemRNN`` or ``RelRNN``, any nonlinearity, any ``combine``.
        x: [T, F], one sequence; time and storage grow as T² n².

    Raises:
        AnalysisInputError: the memory is not a self-attentive RNN.
    """
    if not isinstance(memory, MemRNN | RelRNN) or not isinstance(cell := memory.cell, RNNCell):
        raise AnalysisInputError(
            f"{type(memory).__name__} has no decomposition here: pass a MemRNN or a RelRNN"
        )
    with torch.no_grad():
        h, s, alpha = _forward(memory, x)
        T, n = h.shape
        before = torch.cat([torch.zeros_like(s[:1]), s[:-1]])  # s_{t-1}, with s_0 = 0
        identity = torch.eye(n, dtype=h.dtype, device=h.device)

        # Remark 5: ∂e_{i,t}/∂h_i and ∂e_{i,t}/∂s_{t-1}, rows [T, T, n].
        attention = memory.attention
        query, keys = before @ attention.query_weight.T, h @ attention.key_weight.T
        slope = attention.energy_weight * (1 - torch.tanh(query[:, None] + keys).square())
        de_dh, de_ds = slope @ attention.key_weight, slope @ attention.query_weight

        # X_{i,t} = (h_i - c_t) ∂e_{i,t}/∂h_i, where c_t = Σ_i α_{i,t} h_i   (equation 65)
        c = alpha @ h
        X = torch.einsum("tia,tib->tiab", h[None] - c[:, None], de_dh)
        # Σ_i α_{i,t} Y_{i,t} = Σ_i α_{i,t} (h_i - c_t) ∂e_{i,t}/∂s_{t-1}   (equations 57 and 117)
        Y = torch.einsum("ti,tia,tib->tab", alpha, h[None] - c[:, None], de_ds)

        df = _combine_derivative(memory)
        ds_dh = df * alpha[:, :, None, None] * (identity + X)
        ds_dh[torch.arange(T), torch.arange(T)] += df * identity
        V = cell.recurrent_weight
        a = x @ cell.input_weight.T + before @ V.T + cell.bias
        J = _derivative(cell.nonlinearity, a)[1:, :, None] * V
    return Decomposition(alpha=alpha, ds_dh=ds_dh, ds_ds=df * Y, J=J)


def _forward(memory: AttentiveRNN, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return h [T, n], s [T, n] and α [T, T] of one sequence."""
    one: Memory[Any] = memory
    with added_to_output(memory.cell, x.new_zeros(())) as hidden:
        s, _, look = one.trace(x[:, None])
    return torch.stack(hidden)[:, 0], s[:, 0], alpha_matrix(look)


def _combine_derivative(memory: AttentiveRNN) -> float:
    """Return ∂₁f = ∂₂f of s = f(h, c): 1 for h + c, 1/2 for the mean."""
    return 1.0 if memory.combine == "sum" else 0.5


def _derivative(phi: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """Return φ'(a) of an elementwise function."""
    with torch.enable_grad():
        leaf = a.detach().requires_grad_()
        return torch.autograd.grad(phi(leaf).sum(), leaf)[0]


def alignment_gradient(
    memory: AttentiveRNN, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return dL/dθ of the alignment's parameters by Lemma 7 (equation 98).

    dL/dθ = Σ_{t,j} α_{j,t} · dL/ds_t · ∂₂f · h_j · Σ_i (1[i=j] - α_{i,t}) ∂e_{i,t}/∂θ

    Args:
        memory: ``MemRNN`` or ``RelRNN``.
        x: [T, F].
        loss: from the outputs [T, n] to the scalar L.

    Returns:
        ``query_weight`` (W_a), ``key_weight`` (U_a) and ``energy_weight`` (v_a), in their shapes.

    Raises:
        AnalysisInputError: the loss is not a scalar, or the memory is none of the two.
    """
    h, before, dL_ds, _ = _total_derivatives(memory, x, loss)
    with torch.no_grad():
        alpha = _forward(memory, x)[2]
        attention = memory.attention
        v = attention.energy_weight
        inner = torch.tanh(
            (before @ attention.query_weight.T)[:, None] + h @ attention.key_weight.T
        )
        slope = v * (1 - inner.square())  # ∂e_{i,t}/∂(W_a s + U_a h_i), [T, T, n]
        df = _combine_derivative(memory)
        # Weight of ∂e_{i,t}/∂θ: the sum over j of equation 104, taken first.
        reward = df * dL_ds @ h.T  # dL/ds_t ∂₂f h_j, entry t, j
        dL_de = alpha * (reward - (alpha * reward).sum(dim=1, keepdim=True))
        return {
            "query_weight": torch.einsum("ti,tia,tb->ab", dL_de, slope, before),
            "key_weight": torch.einsum("ti,tia,ib->ab", dL_de, slope, h),
            "energy_weight": torch.einsum("ti,tia->a", dL_de, inner),
        }


def recurrence_gradient(
    memory: AttentiveRNN, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return dL/d[V, U, b] by Lemma 8 (equation 106, with a_{t-1}: see the misprints).

    [dL/dV, dL/dU, dL/db] = Σ_t diag(φ'(a_{t-1})) · (dL/dh_t)ᵀ · [s_{t-1}; x_t; 1]ᵀ

    Args:
        memory: ``MemRNN`` or ``RelRNN``.
        x: [T, F].
        loss: from the outputs [T, n] to the scalar L.

    Returns:
        ``recurrent_weight`` (V), ``input_weight`` (U) and ``bias`` (b), in their shapes.

    Raises:
        AnalysisInputError: the loss is not a scalar, or the memory is none of the two.
    """
    _, before, _, dL_dh = _total_derivatives(memory, x, loss)
    cell = cast(RNNCell, memory.cell)
    with torch.no_grad():
        a = x @ cell.input_weight.T + before @ cell.recurrent_weight.T + cell.bias
        dL_da = dL_dh * _derivative(cell.nonlinearity, a)
        return {
            "recurrent_weight": dL_da.T @ before,
            "input_weight": dL_da.T @ x,
            "bias": dL_da.sum(dim=0),
        }


def _total_derivatives(
    memory: AttentiveRNN, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h_t, s_{t-1}, dL/ds_t and dL/dh_t, each [T, n].

    dL/ds_t follows from dL/dh by one recurrence step: only h_{t+1} and the queries of step t+1 read
    s_t, so dL/ds_t = ∂L/∂s_t + dL/dh_{t+1} J_t + dL/ds_{t+1} ∂s_{t+1}/∂s_t.
    """
    run = unroll_with_handles(memory, x[:, None])
    value = scalar_loss(loss, run.outputs[:, 0])
    dL_dh, direct = torch.autograd.grad(value, [run.handles, run.outputs])
    h, s = run.hidden[:, 0].detach(), run.outputs[:, 0].detach()
    before = torch.cat([torch.zeros_like(s[:1]), s[:-1]])
    parts = decompose(memory, x)
    dL_ds = direct[:, 0].clone()
    for t in reversed(range(len(x) - 1)):
        dL_ds[t] += dL_dh[t + 1, 0] @ parts.J[t] + dL_ds[t + 1] @ parts.ds_ds[t + 1]
    return h, before, dL_ds, dL_dh[:, 0]
