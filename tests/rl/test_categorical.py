"""The lean distribution over actions is torch's."""

from __future__ import annotations

import torch
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from torch.distributions import Categorical

from relagent.rl.categorical import LeanCategorical, lean


def test_it_is_torchs_distribution_with_its_gradients() -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(20, 7, dtype=torch.float64)).requires_grad_()
    actions = torch.randint(7, (20,))
    ours, theirs = LeanCategorical(7).proba_distribution(logits), Categorical(logits=logits)
    assert (ours.log_prob(actions) - theirs.log_prob(actions)).abs().max() <= 1e-12
    assert (ours.entropy() - theirs.entropy()).abs().max() <= 1e-12
    assert torch.equal(ours.mode(), theirs.probs.argmax(dim=1))
    assert (ours.distribution.probs - theirs.probs).abs().max() <= 1e-12
    for of in (lambda d: d.log_prob(actions), lambda d: d.entropy()):
        (a,), (b,) = (
            torch.autograd.grad(of(d).square().sum(), logits, retain_graph=True)
            for d in (ours, theirs)
        )
        assert (a - b).abs().max() <= 1e-12


def test_it_samples_by_its_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0])
    n = 40_000
    drawn = LeanCategorical(4).proba_distribution(logits.expand(n, -1)).sample()
    shares = drawn.bincount(minlength=4) / n
    expected = logits.softmax(dim=0)
    # Five standard deviations of a share.
    assert ((shares - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt()).all()


def test_only_the_plain_categorical_has_a_twin() -> None:
    class Own(CategoricalDistribution):
        """Somebody's."""

    own, gaussian = Own(3), DiagGaussianDistribution(2)
    assert lean(own) is own and lean(gaussian) is gaussian
    assert type(lean(CategoricalDistribution(3))) is LeanCategorical
