"""Sparse self-attentive memory for reinforcement-learning agents.

- :mod:`~relagent.memories`: RelLSTM, MemLSTM, nine others, and none.
- :mod:`~relagent.envs`: the worlds; :mod:`~relagent.rl`: agents that act in them.
- :mod:`~relagent.tasks`: long sequences for the same memories.
- :mod:`~relagent.analysis`: how gradients travel through them.
- :mod:`~relagent.runs`: what a training leaves on disk; :mod:`~relagent.study`: many of them.
- :mod:`~relagent.errors`: errors that a user can cause; :mod:`~relagent.table`: tables as texts;
  :mod:`~relagent.picture`: what pictures share; :mod:`~relagent.looks`: how memories are called
  and drawn.
"""

import os

# Two OpenMP pools (torch's and a kernel's) that spin while they wait make each other 10 to 40
# times slower on few cores. The runtime reads this when it starts, so it must come before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
