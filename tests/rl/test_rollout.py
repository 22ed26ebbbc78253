"""Advantages against a brute-force sum; minibatches are whole environments, each exactly once."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from relagent.memories import make_memory, map_state
from relagent.memories.lstm import LSTMState
from relagent.rl.policy import Recall
from relagent.rl.rollout import Rollout, gae


def brute_force(
    rewards: Tensor, values: Tensor, ends: Tensor, last_value: float, gamma: float, lam: float
) -> list[float]:
    """The mixture of n-step advantages of one environment, by its definition.

    A_t = (1 - λ) Σ_{n<N} λ^{n-1} A_t^(n) + λ^{N-1} A_t^(N), where N steps are left of the episode
    or of the rollout and A_t^(n) = Σ_{k<n} γ^k r_{t+k} + γ^n V_{t+n} - V_t.
    """
    v = [*values.tolist(), last_value]
    advantages = []
    for t in range(len(rewards)):
        n_step = []
        for n in range(1, len(rewards) - t + 1):
            over = bool(ends[t + n - 1])
            bootstrap = 0.0 if over else gamma**n * v[t + n]
            rewarded = sum(gamma**k * float(rewards[t + k]) for k in range(n))
            n_step.append(rewarded + bootstrap - v[t])
            if over:
                break
        mixed = sum((1 - lam) * lam**i * a for i, a in enumerate(n_step[:-1]))
        advantages.append(mixed + lam ** (len(n_step) - 1) * n_step[-1])
    return advantages


@given(
    steps=st.integers(1, 9),
    envs=st.integers(1, 3),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    ending=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_gae_is_the_brute_force_sum(
    steps: int, envs: int, gamma: float, lam: float, ending: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rewards, values, last_values = normal(steps, envs), normal(steps, envs), normal(envs)
    ends = torch.rand(steps, envs, generator=generator) < ending
    starts = torch.cat([torch.rand(1, envs, generator=generator) < 0.5, ends[:-1]])

    found = gae(rewards, values, starts, last_values, ends[-1], gamma, lam)

    for e in range(envs):
        expected = brute_force(
            rewards[:, e], values[:, e], ends[:, e], float(last_values[e]), gamma, lam
        )
        assert (found[:, e] - torch.tensor(expected, dtype=torch.float64)).abs().max() <= 1e-10


def rollout_of(steps: int, envs: int) -> Rollout:
    """A rollout in which every number says which step and environment it belongs to."""
    column = torch.arange(envs, dtype=torch.float32)
    empty = make_memory("lstm", 2, 3).initial_state(envs)
    state = map_state(lambda part: part + column[:, None], empty)
    rollout = Rollout(steps, envs, state, Recall(None))
    for t in range(steps):
        marks = 100.0 * t + column
        no, yes = torch.zeros(envs).bool(), torch.ones(envs).bool()
        rollout.add({"mark": marks[:, None]}, no, marks, marks, marks, marks, yes)
    rollout.finish(torch.zeros(envs), torch.zeros(envs).bool(), 0.9, 0.9)
    return rollout


@given(steps=st.integers(1, 4), envs=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_minibatches_deal_out_whole_environments_once(
    steps: int, envs: int, data: st.DataObject
) -> None:
    rollout = rollout_of(steps, envs)
    n_batches = data.draw(st.integers(1, envs))
    batches = list(rollout.minibatches(n_batches))

    assert len(batches) == n_batches
    sizes = [batch.actions.shape[1] for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    marks = torch.cat([batch.actions for batch in batches], dim=1)
    assert torch.equal(marks.sort(dim=1).values, rollout.actions)
    for batch in batches:
        assert isinstance(batch.observations, dict)
        assert torch.equal(batch.observations["mark"].squeeze(-1), batch.actions)
        assert torch.equal(batch.start_state[0][:, 0], batch.actions[0])
        for part in (batch.old_values, batch.old_log_prob):
            assert torch.equal(part, batch.actions)


def test_rows_are_taken_on_the_device_of_the_rollout() -> None:
    with FakeTensorMode():  # of a machine that need not be there
        state = LSTMState(torch.empty(4, 3, device="cuda"), torch.empty(4, 3, device="cuda"))
        rollout = Rollout(2, 4, state, Recall(None))
        for name in ("actions", "episode_starts", "values", "log_prob", "own"):
            setattr(rollout, name, torch.empty(2, 4, device="cuda"))
        for name in ("observations", "advantages", "returns"):
            setattr(rollout, name, torch.empty(2, 4, device="cuda"))
        batch = rollout.take(torch.arange(3))
    assert batch.actions.shape == (2, 3) and batch.actions.device.type == "cuda"


def test_a_generator_repeats_the_deal() -> None:
    rollout = rollout_of(2, 8)

    def deal(seed: int) -> list[list[float]]:
        generator = torch.Generator().manual_seed(seed)
        return [batch.actions[0].tolist() for batch in rollout.minibatches(3, generator)]

    assert deal(1) == deal(1) != deal(2)
