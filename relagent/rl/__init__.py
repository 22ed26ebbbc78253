"""The agent, from an observation to the report of what it is worth; read in this order.

What it is:

- :mod:`~relagent.rl.encoder`: observation to features, with :mod:`~relagent.rl.lookup` (cells of a
  grid to one vector), :mod:`~relagent.rl.lookup_kernel` (the same on the CPU, fused) and
  :mod:`~relagent.rl.grids`, :mod:`~relagent.rl.distinct` (what is equal is encoded once).
- :mod:`~relagent.rl.policy`: encoder, memory, actor and critic, with
  :mod:`~relagent.rl.categorical`, the distribution over its actions.

How it learns:

- :mod:`~relagent.rl.worlds`: worlds that can be saved and restored, and
  :mod:`~relagent.rl.exploring`: random actions that open some of their episodes.
- :mod:`~relagent.rl.acting`: from worlds to a :mod:`~relagent.rl.rollout`.
- :mod:`~relagent.rl.ppo`: from a rollout, by :mod:`~relagent.rl.loss` and
  :mod:`~relagent.rl.gradient`, to better weights.
- :mod:`~relagent.rl.train`: settings to a run, with :mod:`~relagent.rl.callbacks` beside it and
  :mod:`~relagent.rl.checkpoint` to keep it.

What it is worth:

- :mod:`~relagent.rl.episodes`: episodes side by side, by :mod:`~relagent.rl.choice`, where each
  draws its own actions; :mod:`~relagent.rl.play` and :mod:`~relagent.rl.workers`: many of them.
- :mod:`~relagent.rl.transfer`: runs to a :mod:`~relagent.rl.report` with its
  :mod:`~relagent.rl.figure`.
"""

from relagent.rl.checkpoint import load_policy
from relagent.rl.policy import MemoryPolicy
from relagent.rl.ppo import MemoryPPO

__all__ = ["MemoryPPO", "MemoryPolicy", "load_policy"]
