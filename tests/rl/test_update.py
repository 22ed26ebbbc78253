"""The update: PPO's loss transition by transition, its limits, and what its options change."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest
import torch

from relagent.rl import MemoryPPO
from relagent.rl.rollout import Minibatch

from .worlds import Watch, same_weights, small_model, toys, weights, world


def minibatch(model: MemoryPPO) -> Minibatch:
    """A rollout of all environments, as if the policy had moved away from it since."""
    rollout = model.rollout
    assert rollout is not None
    batch = rollout.take(torch.arange(rollout.n_envs))
    torch.manual_seed(1)
    return batch._replace(
        old_log_prob=batch.old_log_prob + 0.3 * torch.randn_like(batch.old_log_prob),
        old_values=batch.old_values + torch.randn_like(batch.old_values),
    )


@pytest.mark.parametrize("clip_range_vf", [None, 0.5])
@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("all_own", [True, False])
def test_the_loss_is_the_papers(action: str, clip_range_vf: float | None, all_own: bool) -> None:
    """Equations 7 and 9 of Schulman et al. 2017, a loop over the agent's own transitions."""
    model = small_model(
        toys(4, "box", action), "rel", double=True, ent_coef=0.07, vf_coef=0.3
    ).learn(12 * 4)
    batch = minibatch(model)
    if not all_own:
        batch = batch._replace(own=torch.rand(12, 4) < 0.6)

    loss, logged = model._loss(batch, 0.2, clip_range_vf)

    values, log_prob, entropies = model.policy.evaluate_actions(
        batch.observations, batch.actions, batch.start_state, batch.episode_starts
    )
    assert entropies is not None
    values, log_prob = values.detach(), log_prob.detach()
    surrogates, squares, divergences, clipped = [], [], [], []
    for t in range(12):
        for e in range(4):
            if not batch.own[t, e]:
                continue
            change = float(log_prob[t, e] - batch.old_log_prob[t, e])
            ratio, advantage = exp(change), float(batch.advantages[t, e])
            limited = min(max(ratio, 0.8), 1.2)
            surrogates.append(min(ratio * advantage, limited * advantage))
            old, value = float(batch.old_values[t, e]), float(values[t, e])
            if clip_range_vf is not None:
                value = min(max(value, old - clip_range_vf), old + clip_range_vf)
            squares.append((value - float(batch.returns[t, e])) ** 2)
            divergences.append(ratio - 1 - change)
            clipped.append(float(ratio != limited))

    def mean(numbers: list[float]) -> float:
        return sum(numbers) / len(numbers)

    expected = -mean(surrogates) - 0.07 * entropies[batch.own].mean().item() + 0.3 * mean(squares)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-10)
    assert float(logged["policy_gradient_loss"]) == pytest.approx(-mean(surrogates), abs=1e-10)
    assert float(logged["value_loss"]) == pytest.approx(mean(squares), abs=1e-10)
    assert float(logged["approx_kl"]) == pytest.approx(mean(divergences), abs=1e-10)
    assert float(logged["clip_fraction"]) == pytest.approx(mean(clipped)) and any(clipped)


@pytest.mark.parametrize("normalise", [True, False])
def test_advantages_are_normalised_over_the_rollout(
    normalise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    before: list[torch.Tensor] = []
    original = MemoryPPO._loss

    def note(self: MemoryPPO, batch: Minibatch, *rest: Any) -> Any:
        seen.append(batch.advantages)
        return original(self, batch, *rest)

    def keep(model: MemoryPPO) -> None:
        assert model.rollout is not None
        before.append(model.rollout.advantages)

    monkeypatch.setattr(MemoryPPO, "_loss", note)
    model = small_model(toys(), "none", True, normalize_advantage=normalise, n_epochs=1)
    model.learn(12 * 4, callback=Watch(rollout_end=keep))

    used, raw = torch.cat(seen, dim=1), before[0]
    expected = (raw - raw.mean()) / raw.std() if normalise else raw
    assert len(seen) == 2, "the two minibatches are normalised together"
    assert (used.flatten().sort().values - expected.flatten().sort().values).abs().max() <= 1e-6


@pytest.mark.parametrize("limit", [1e-3, 1e9])
def test_the_gradient_is_clipped_by_its_norm(limit: float) -> None:
    """One step of plain gradient descent at rate 1 moves the weights by the gradient."""
    model = small_model(
        toys(),
        "rel",
        double=True,
        learning_rate=1.0,
        n_epochs=1,
        batch_size=12 * 4,
        max_grad_norm=limit,
        policy_kwargs={"optimizer_class": torch.optim.SGD},
    )
    before = weights(model)
    after = weights(model.learn(12 * 4))
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    norm = model.logger.name_to_value["train/gradient_norm"]
    assert norm > 1e-2, "the logged norm is the one before clipping"
    assert float(moved) == pytest.approx(min(norm, limit), rel=1e-3)


def test_a_limit_of_the_divergence_stops_the_epochs() -> None:
    def updates(target_kl: float | None) -> int:
        model = small_model(toys(), "lstm", n_epochs=20, learning_rate=1e-2, target_kl=target_kl)
        return model.learn(12 * 4)._n_updates

    assert updates(None) == updates(1e9) == 20
    assert 1 <= updates(1e-4) < 20


def test_the_entropy_bonus_keeps_the_policy_undecided() -> None:
    def entropy(ent_coef: float) -> float:
        model = small_model(world("box"), "none", ent_coef=ent_coef, learning_rate=1e-2, n_epochs=8)
        model.learn(8 * 12 * 4)
        return -model.logger.name_to_value["train/entropy_loss"]

    assert entropy(1.0) > entropy(0.0) > entropy(-1.0)


@pytest.mark.parametrize("option", ["clip_range", "learning_rate"])
def test_a_schedule_is_followed_to_its_end(option: str) -> None:
    """An update at rate 0 changes nothing; one that clips at 0 still has its first gradient."""
    schedules: dict[str, Any] = {option: lambda progress: float(progress > 0.1)}
    model = small_model(toys(), "rel", **schedules)
    rates: list[dict[str, torch.Tensor]] = []
    model.learn(2 * 12 * 4, callback=Watch(rollout_end=lambda model: rates.append(weights(model))))
    assert model.logger.name_to_value[f"train/{option}"] == 0
    assert same_weights(rates[-1], weights(model)) == (option == "learning_rate")
