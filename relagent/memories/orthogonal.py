"""Recurrent networks whose recurrence starts, or stays, a rotation: orth-RNN and exp-RNN.

A rotation keeps the length of what it turns, so neither the state nor its gradient vanishes or
explodes over many steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from relagent.memories.rnn import RNN


def henaff_skew(size: int) -> Tensor:
    """Return a random skew-symmetric matrix whose exponential turns pairs of units.

        A = diag([0 θ_1; -θ_1 0], [0 θ_2; -θ_2 0], ...),   θ_k ~ U(-π, 0)

    An odd last unit is not turned. After Henaff, Szlam & LeCun 2016, *Recurrent Orthogonal Networks
    and Long-Memory Tasks*.

    Returns:
        A [size, size].
    """
    angles = torch.zeros(size - 1)
    angles[::2] = torch.empty(size // 2).uniform_(-math.pi, 0)
    upper = torch.diag(angles, 1)
    return upper - upper.T


class OrthRNN(RNN):
    """A recurrent network that starts as a rotation and is then trained freely.

        h' = φ(U x + V h + b)      V = exp(A) at the start, A as in :func:`henaff_skew`

    The orth-RNN of Kerg et al. 2020.

    Args:
        input_size: F.
        hidden_size: H.
        nonlinearity: φ, one of ``tanh``, ``relu``, ``modrelu``.

    Raises:
        MemoryOptionError: an unknown nonlinearity.
    """

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "modrelu") -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity)
        self.cell.recurrent_weight.data.copy_(torch.matrix_exp(henaff_skew(hidden_size)))


class SkewExponential(nn.Module):
    """The orthogonal matrix exp(A) of the entries below the diagonal of a skew-symmetric A.

    Whatever step an optimiser takes in these entries, exp(A) stays a rotation (Lezcano-Casado &
    Martínez-Rubio 2019, *Cheap Orthogonal Constraints in Neural Networks*).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, below: Tensor) -> Tensor:
        """Return exp(A) [n, n] for the n (n - 1) / 2 entries of A, row by row."""
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=below.device)
        lower = below.new_zeros(self.size, self.size, dtype=torch.float64)
        lower = lower.index_put((rows, columns), below.double())
        # In float64, because repeated squaring multiplies the rounding errors: in float32 and size
        # 128, ‖VᵀV - I‖ passes 1e-5 as soon as A has left its start.
        return torch.matrix_exp(lower - lower.T).to(below.dtype)


class ExpRNN(RNN):
    """A recurrent network that stays a rotation (Lezcano-Casado & Martínez-Rubio 2019).

        h' = φ(U x + V h)      V = exp(A),   A = -Aᵀ

    The free parameters are the entries of A below its diagonal; they start as in
    :func:`henaff_skew`. There is no bias but that of modReLU. The exponential is computed once per
    :meth:`unroll` (and once per :meth:`step`, unless inside
    :func:`torch.nn.utils.parametrize.cached`).

    The authors give A a learning rate of about a tenth of the others':
    :meth:`orthogonal_parameters` says which parameters these are.

    Args:
        input_size: F.
        hidden_size: H.
        nonlinearity: φ, one of ``tanh``, ``relu``, ``modrelu``.

    Raises:
        MemoryOptionError: an unknown nonlinearity.
    """

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "modrelu") -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity)
        rows, columns = torch.tril_indices(hidden_size, hidden_size, -1)
        below = henaff_skew(hidden_size)[rows, columns]
        # From here on the cell's recurrent weight is computed, from the parameter it now holds.
        self.cell.recurrent_weight = nn.Parameter(below)
        parametrize.register_parametrization(
            self.cell, "recurrent_weight", SkewExponential(hidden_size), unsafe=True
        )
        del self.cell.bias
        self.cell.register_buffer("bias", torch.zeros(hidden_size), persistent=False)

    def orthogonal_parameters(self) -> list[nn.Parameter]:
        """See :meth:`Memory.orthogonal_parameters`."""
        return [self.cell.get_parameter("parametrizations.recurrent_weight.original")]
