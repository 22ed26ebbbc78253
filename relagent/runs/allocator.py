"""Memory that is kept between updates instead of being given back and fetched again.

Each update of a long sequence allocates tens of megabytes and frees them. By default the C library
returns them to the system, which clears and maps every page anew at the next update.
"""

from __future__ import annotations

import ctypes

# Names and numbers of glibc's malloc.h; the thresholds are bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 2**30
_LARGEST = 2**25  # larger pieces are always mapped: glibc takes no more


def keep_freed_memory() -> bool:
    """Let this process keep up to a gibibyte of freed memory, in pieces of up to 32 MiB.

    Returns:
        Whether the C library can: glibc does, others go on as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
