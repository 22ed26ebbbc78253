"""The model of every task: an embedding where inputs are symbols, a memory, a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from relagent.memories import AnyState, ExpRNN, Memory


class SequenceModel(nn.Module):
    """Class scores at each step of a sequence.

    ::

        logits_t = V y_t + b,   y = memory(x)  or  memory(E[x])

    Args:
        memory: any memory.
        n_classes: C.
        n_symbols: number of symbols, where inputs are numbers of symbols; their embedding is as
            wide as the memory's input.
    """

    def __init__(self, memory: Memory[Any], n_classes: int, n_symbols: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_symbols, memory.input_size) if n_symbols else None
        self.memory = memory
        self.head = nn.Linear(memory.hidden_size, n_classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, state: AnyState | None = None) -> tuple[Tensor, AnyState]:
        """Read a sequence.

        Args:
            x: [T, B, F], or [T, B] numbers of symbols.
            state: of the memory before the first step; ``None``: empty.

        Returns:
            The logits [T, B, C] and the state after the last step.
        """
        if self.embedding is not None:
            x = self.embedding(x)
        y, state = self.memory.unroll(x, state)
        return self.head(y), state


def parameter_groups(
    model: SequenceModel, learning_rate: float, orthogonal_learning_rate: float | None
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: a rotation's parameters have a learning rate of their own."""
    orthogonal = model.memory.orthogonal_parameters()
    if not orthogonal:
        return [{"params": list(model.parameters()), "lr": learning_rate}]
    theirs = {id(parameter) for parameter in orthogonal}
    others = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
    return [
        {"params": others, "lr": learning_rate},
        {"params": orthogonal, "lr": orthogonal_learning_rate},
    ]


def orthogonality_error(memory: Memory[Any]) -> float | None:
    """Return ‖VᵀV - I‖ (Frobenius) of a recurrence that stays a rotation; ``None`` of others."""
    if not isinstance(memory, ExpRNN):
        return None
    with torch.no_grad():
        V = memory.recurrent_matrix().double()
        return float((V.T @ V - torch.eye(len(V), dtype=V.dtype, device=V.device)).norm())
