"""Setting of glibc that keeps freed memory in the process, which makes CPU training faster.

By default glibc returns a block of tens of megabytes to the system when it is freed. When the
block is allocated again, every four kilobytes of it cause a page fault. This takes about a quarter
of the time of a training step on a CPU.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)


def keep_memory() -> None:
    """Make glibc keep freed memory for this process; do nothing where mallopt does not exist.

    Example:
        >>> keep_memory()
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
