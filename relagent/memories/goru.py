"""The gated orthogonal recurrent unit: a rotation remembers, gates forget.

References:
    a. Jing et al. 2017, *Tunable Efficient Unitary Neural Networks (EUNN) and their application to
       RNNs*.
    b. Jing et al. 2017, *Gated Orthogonal Recurrent Units: On Learning to Forget*.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories.cells import ModReLU
from relagent.memories.errors import MemoryOptionError
from relagent.memories.projected import ProjectedMemory


class GORUState(NamedTuple):
    """The state of a GORU."""

    h: Tensor
    """[B, H] hidden state."""


def fft_rotation(angles: Tensor) -> Tensor:
    """Return an orthogonal matrix as a product of layers of plane rotations.

    Layer l turns the plane of the units i and i + 2^l by an angle of its own, for the n/2 values of
    i whose bit l is 0. The planes are wired like the butterflies of a fast Fourier transform, so
    log2(n) layers let every unit reach every other (the FFT-style network of Jing et al. 2017a,
    with real rotations).

    Args:
        angles: [log2 n, n/2].

    Returns:
        Q [n, n].
    """
    n = 2 ** len(angles)
    Q = torch.eye(n, dtype=angles.dtype, device=angles.device)
    for level, theta in enumerate(angles):
        stride = 2**level
        cos, sin = theta.cos().view(-1, stride, 1), theta.sin().view(-1, stride, 1)
        one, other = Q.view(-1, 2, stride, n).unbind(dim=1)  # rows i and i + stride
        turned = torch.stack([cos * one - sin * other, sin * one + cos * other], dim=1)
        Q = turned.view(n, n)
    return Q


class GORU(ProjectedMemory[GORUState]):
    """Gated orthogonal recurrent unit (Jing et al. 2017b).

        r = σ(W_r h + U_r x + b_r)      g = σ(W_g h + U_g x + b_g)
        c = modReLU(U_c x + r ⊙ Q h)
        h' = g ⊙ h + (1 - g) ⊙ c        y = h'

    Q is orthogonal by construction: see :func:`fft_rotation`. b_r starts at 2, b_g at 0; the
    angles are drawn from U(-π, π). The rows of U are ordered r, g, c; those of W and b r, g.

    Args:
        input_size: F.
        hidden_size: H, a power of 2.

    Raises:
        MemoryOptionError: the hidden size is no power of 2.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.check_hidden_size(self.hidden_size)
        levels = self.hidden_size.bit_length() - 1
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.gate_weight = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        self.angles = nn.Parameter(torch.empty(levels, hidden_size // 2))
        self.nonlinearity = ModReLU(hidden_size)
        for block in (*self.input_weight.data.chunk(3), *self.gate_weight.data.chunk(2)):
            nn.init.xavier_uniform_(block)
        nn.init.uniform_(self.angles, -math.pi, math.pi)
        self.bias.data[:hidden_size] = 2.0

    @classmethod
    def check_hidden_size(cls, hidden_size: int) -> None:
        """See :meth:`Memory.check_hidden_size`."""
        levels = max(hidden_size.bit_length() - 1, 0)
        if hidden_size != 2**levels:
            raise MemoryOptionError(
                f"goru needs a hidden_size that is a power of 2, not {hidden_size}: its rotation "
                f"is wired like a fast Fourier transform; choose {2**levels} or {2 ** (levels + 1)}"
            )

    def initial_state(self, batch: int) -> GORUState:
        """See :meth:`Memory.initial_state`."""
        return GORUState(self.zeros(batch, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """Return U x + b for r and g, U x for c."""
        return x @ self.input_weight.T + nn.functional.pad(self.bias, (0, self.hidden_size))

    def recurrent_matrix(self) -> Tensor:
        """Return W_r, W_g and Q, one below the other [3 H, H]."""
        return torch.cat([self.gate_weight, fft_rotation(self.angles)])

    def advance(self, p: Tensor, state: GORUState, R: Tensor) -> tuple[Tensor, GORUState]:
        """See :meth:`ProjectedMemory.advance`."""
        h = state.h
        x_r, x_g, x_c = p.chunk(3, dim=1)
        h_r, h_g, Qh = (h @ R.T).chunk(3, dim=1)
        r, g = (x_r + h_r).sigmoid(), (x_g + h_g).sigmoid()
        c = self.nonlinearity(x_c + r * Qh)
        h = g * h + (1 - g) * c
        return h, GORUState(h)
