"""Freed memory is kept, so that large tensors are not paged in anew in every step.

glibc gives blocks of tens of megabytes back to the system on every free; taking them again is a
page fault every four kilobytes, which costs a CPU training step about a quarter of its time.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)


def keep_memory() -> None:
    """Tell glibc to keep freed memory for this process; does nothing where there is no mallopt.

    Example:
        >>> keep_memory()
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
