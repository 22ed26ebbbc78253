"""All parameters' gradients side by side, so that one operation serves them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class JointGradient:
    """The gradients of many small parameters as parts of one array.

    Zeroing and clipping then cost two operations, not two for each parameter.

    Args:
        parameters: whose gradients; what they hold is lost. They must not be set to ``None`` as
            long as this is used. Where the loss does not reach, they are 0.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        alike: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            if parameter.requires_grad:
                alike[parameter.dtype, parameter.device].append(parameter)
        self.arrays: list[Tensor] = []
        for (dtype, device), group in alike.items():
            sizes = [parameter.numel() for parameter in group]
            array = torch.zeros(sum(sizes), dtype=dtype, device=device)
            for parameter, part in zip(group, torch.split(array, sizes), strict=True):
                parameter.grad = part.view_as(parameter)
            self.arrays.append(array)

    def zero(self) -> None:
        """Set all gradients to 0."""
        for array in self.arrays:
            array.zero_()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradient down to a norm of ``max_norm``; return the norm that it had."""
        norm = torch.nn.utils.get_total_norm(self.arrays)
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for array in self.arrays:
            array.mul_(scale.to(array.device, array.dtype))
        return norm
