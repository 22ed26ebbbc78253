"""Sparse self-attentive memory for reinforcement-learning agents."""

import os

# Two OpenMP pools (torch's and a kernel's) that spin while they wait make each other 10 to 40
# times slower on few cores. The runtime reads this when it starts, so it must come before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
