"""The agent: encoder, policy, rollout, acting, PPO, training, transfer; read in this order."""

from relagent.rl.checkpoint import load_policy
from relagent.rl.policy import MemoryPolicy
from relagent.rl.ppo import MemoryPPO

__all__ = ["MemoryPPO", "MemoryPolicy", "load_policy"]
