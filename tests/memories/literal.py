"""The attentive memories again, as slowly and as literally as their description allows.

One row, one step, one remembered state at a time; Python lists, no masks, no slots. Only the
parameters are shared with the memories under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)  # one is equal to itself alone
class Remembered:
    """A hidden state, when it was made and the attention that it earned."""

    h: Tensor
    made: int
    score: float = 0.0


@dataclass
class Row:
    """One episode of one row."""

    s: Tensor
    c: Tensor
    short: list[Remembered] = field(default_factory=list)  # S, oldest first
    relevant: list[Remembered] = field(default_factory=list)  # R
    last_weights: list[float] = field(default_factory=list)
    evicted: int = -1
    admitted: bool = False


def lstm_cell(cell: Any, x: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    n = len(s)
    z = cell.input_weight @ x + cell.recurrent_weight @ s + cell.bias
    i, f = torch.sigmoid(z[:n]), torch.sigmoid(z[n : 2 * n])
    g, o = torch.tanh(z[2 * n : 3 * n]), torch.sigmoid(z[3 * n :])
    c = f * c + i * g
    return o * torch.tanh(c), c


def modrelu(z: Tensor, bias: Tensor) -> Tensor:
    """Element by element: move the magnitude by b, stop at 0, keep the sign."""
    out = []
    for value, b in zip(z, bias, strict=True):
        magnitude = abs(value.item()) + b.item()
        sign = 1 if value > 0 else -1
        out.append(sign * (sign * value + b) if magnitude > 0 and value != 0 else 0 * value)
    return torch.stack(out)


def nonlinearity(cell: Any, z: Tensor) -> Tensor:
    if cell.nonlinearity_name == "modrelu":
        return modrelu(z, cell.nonlinearity.bias)
    return torch.tanh(z) if cell.nonlinearity_name == "tanh" else z.clamp(min=0)


def rnn_cell(cell: Any, x: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return nonlinearity(cell, cell.input_weight @ x + cell.recurrent_weight @ s + cell.bias), c


def attend(attention: Any, s: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """softmax over v_aᵀ tanh(W_a s + U_a h_i), and the weighted sum of the h_i."""
    energies = [
        attention.energy_weight @ torch.tanh(attention.query_weight @ s + attention.key_weight @ h)
        for h in states
    ]
    largest = max(e.item() for e in energies)
    exponentials = [torch.exp(e - largest) for e in energies]
    total = sum(exponentials[1:], exponentials[0])
    weights = [e / total for e in exponentials]
    context = torch.zeros_like(s)
    for weight, h in zip(weights, states, strict=True):
        context = context + weight * h
    return context, weights


def screen(row: Row, new: Remembered, nu: int, rho: int) -> None:
    """The new state enters S; the one that has to leave looks for a place in R."""
    row.evicted, row.admitted = -1, False
    if len(row.short) == nu:
        leaver = row.short.pop(0)
        if len(row.relevant) < rho:
            row.relevant.append(leaver)
            row.admitted = True
        else:
            row.evicted = leaver.made
            lowest = None
            for i, member in enumerate(row.relevant):
                if lowest is None or member.score < row.relevant[lowest].score:
                    lowest = i
            if lowest is not None and leaver.score > row.relevant[lowest].score:
                row.evicted = row.relevant[lowest].made
                row.relevant[lowest] = leaver
                row.admitted = True
    row.short.append(new)


def unroll(
    memory: Any, x: Tensor, starts: Tensor, nu: int | None, rho: int = 0
) -> tuple[Tensor, list[Row], list[list[tuple[int, bool, list[int]]]]]:
    """Every row by itself from an empty memory; ``nu=None`` remembers everything (Mem...).

    Returns:
        Outputs [T, B, H], the last rows, and per step and row what was forgotten (when it was
        made), whether one was admitted, and when the remembered ones were made.
    """
    steps, rows, _ = x.shape
    cell = lstm_cell if memory.cell.carry_size else rnn_cell
    outputs: list[list[Tensor]] = [[] for _ in range(steps)]
    history: list[list[tuple[int, bool, list[int]]]] = [[] for _ in range(steps)]
    last = []
    for b in range(rows):
        n = memory.hidden_size
        row = Row(torch.zeros(n).to(x), torch.zeros(memory.cell.carry_size).to(x))
        for t in range(steps):
            if starts[t, b]:
                row = Row(torch.zeros(n).to(x), torch.zeros(memory.cell.carry_size).to(x))
            h, row.c = cell(memory.cell, x[t, b], row.s, row.c)
            screen(row, Remembered(h, t), steps + 1 if nu is None else nu, rho)
            known = row.relevant + row.short
            context, weights = attend(memory.attention, row.s, [one.h for one in known])
            for one, weight in zip(known, weights, strict=True):
                if one in row.short:
                    one.score += weight.item()
            row.s = h + context if memory.combine == "sum" else 0.5 * (h + context)
            row.last_weights = [weight.item() for weight in weights]
            outputs[t].append(row.s)
            history[t].append((row.evicted, row.admitted, sorted(one.made for one in known)))
        last.append(row)
    return torch.stack([torch.stack(row_outputs) for row_outputs in outputs]), last, history
