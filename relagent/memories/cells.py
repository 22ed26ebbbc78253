"""The recurrent cells inside the attentive memories: they read the macro-state s where a plain cell
reads its own h.

Both have one signature, ``h, c = cell(x, s, c)`` with x [B, F], s [B, H] and the carry
c [B, carry_size], so that a memory need not know which of them it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from relagent.memories.errors import MemoryOptionError


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

        i, f, o = σ(W x + R s + b)      g = tanh(W x + R s + b)
        c' = f ⊙ c + i ⊙ g              h' = o ⊙ tanh(c')

    One bias. The rows of W, R and b are ordered i, f, g, o. The forget gate's bias starts at 1
    (Jozefowicz et al. 2015), recurrent blocks start orthogonal.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.carry_size = hidden_size
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        for gate in range(4):
            rows = slice(gate * hidden_size, (gate + 1) * hidden_size)
            nn.init.xavier_uniform_(self.input_weight.data[rows])
            nn.init.orthogonal_(self.recurrent_weight.data[rows])
        self.bias.data[hidden_size : 2 * hidden_size] = 1.0

    def forward(self, x: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return h' [B, H] and c' [B, H]."""
        gates = x @ self.input_weight.T + s @ self.recurrent_weight.T + self.bias
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ModReLU(nn.Module):
    """modReLU of a real vector (Arjovsky et al. 2016; Helfrich et al. 2018).

    φ(z) = sign(z) · ReLU(|z| + b),  b ~ U(-0.01, 0.01)
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size).uniform_(-0.01, 0.01))

    def forward(self, z: Tensor) -> Tensor:
        """Return φ(z) for z [.., size]."""
        return z.sign() * torch.relu(z.abs() + self.bias)


_NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "tanh": lambda _: nn.Tanh(),
    "relu": lambda _: nn.ReLU(),
    "modrelu": ModReLU,
}


class RNNCell(nn.Module):
    """The plain recurrent cell, equation 10 of Kerg et al. 2020.

        h' = φ(U x + V s + b)

    V starts orthogonal. The carry is empty (width 0).

    Args:
        nonlinearity: φ, one of ``tanh``, ``relu``, ``modrelu``.

    Raises:
        MemoryOptionError: an unknown nonlinearity.
    """

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str = "tanh") -> None:
        super().__init__()
        if nonlinearity not in _NONLINEARITIES:
            raise MemoryOptionError(
                f"unknown nonlinearity {nonlinearity!r}: choose one of {', '.join(_NONLINEARITIES)}"
            )
        self.carry_size = 0
        self.nonlinearity_name = nonlinearity
        self.input_weight = nn.Parameter(torch.empty(hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.nonlinearity = _NONLINEARITIES[nonlinearity](hidden_size)
        nn.init.xavier_uniform_(self.input_weight.data)
        nn.init.orthogonal_(self.recurrent_weight.data)

    def forward(self, x: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return h' [B, H] and the empty carry [B, 0]."""
        z = x @ self.input_weight.T + s @ self.recurrent_weight.T + self.bias
        return self.nonlinearity(z), c
