"""The machine in words, for the report: nothing that names a person or a host."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory in GiB and, where there is one, the GPU."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": available_cores(),
        "memory_gib": _memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def machine_words() -> str:
    """Processor and cores, ``AMD EPYC, 2 cores``."""
    here = machine()
    return f"{here['processor']}, {here['cores']} cores"


def available_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)


def peak_resident() -> int:
    """The most memory that this process has had resident so far, in bytes."""
    line = _line("/proc/self/status", "VmHWM")
    if line is not None:  # on Linux, where ru_maxrss counts what a parent held at the fork
        return 1024 * int(line.split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _memory() -> float | None:
    line = _line("/proc/meminfo", "MemTotal")
    return round(int(line.split()[0]) / 2**20, 1) if line else None


def _line(file: str, key: str) -> str | None:
    """A value of one of Linux's tables; None on other systems."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)
