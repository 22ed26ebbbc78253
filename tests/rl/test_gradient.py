"""The joint gradient zeroes and clips as torch does, parameter by parameter."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from relagent.rl.gradient import JointGradient


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_it_clips_as_torch_does(max_norm: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    net[2].bias.requires_grad_(False)
    net[0].float()  # parameters of two kinds
    other, x = deepcopy(net), torch.randn(7, 4)

    def loss(model: nn.Sequential) -> torch.Tensor:
        total: torch.Tensor = model[2](model[1](model[0](x)).double()).square().sum()
        return total

    gradient = JointGradient(net.parameters())
    for _ in range(2):  # the second time from zero again
        gradient.zero()
        loss(net).backward()
        norm = gradient.clip(max_norm)
    loss(other).backward()
    expected = nn.utils.clip_grad_norm_(other.parameters(), max_norm)

    assert float(norm) == pytest.approx(float(expected), rel=1e-6)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            assert ours.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6)
