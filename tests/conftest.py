"""One thread for each test process and its children: many small tensors gain nothing from more."""

from __future__ import annotations

import os

# Read when torch is imported, which must come later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
