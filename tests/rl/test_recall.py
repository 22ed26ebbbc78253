"""A task that needs memory is learned by the memories, and not without.

The eight blank steps between cue and choice are more than the short-term buffer holds; rollouts of
16 steps start and end anywhere in the episodes of 10.
"""

from __future__ import annotations

import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from relagent.envs import PythonVecEnv
from relagent.rl import MemoryPPO

from .recall import Recall


def success(memory: str) -> float:
    """Train, then play 200 new episodes: how often the cue was named."""
    model = MemoryPPO(
        "MemoryPolicy",
        PythonVecEnv([Recall] * 64),
        learning_rate=lambda progress: 5e-3 * progress,
        n_steps=16,
        batch_size=16 * 16,
        gamma=0.9,
        policy_kwargs={"memory": memory, "hidden_size": 16, "net_arch": ()},
        seed=0,
        device="cpu",
    )
    model.learn(20 * 16 * 64)
    env = PythonVecEnv([Recall] * 50)
    env.seed(1)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=200, warn=False)
    assert isinstance(mean, float)
    return mean


@pytest.mark.parametrize("memory", ["rel", "mem", "lstm", "gru"])
def test_a_memory_recalls_the_cue(memory: str) -> None:
    assert success(memory) >= 0.98


def test_without_a_memory_it_is_a_coin_flip() -> None:
    assert 0.35 <= success("none") <= 0.65
