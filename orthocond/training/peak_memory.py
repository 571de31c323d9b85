"""Peak memory of a run."""

from __future__ import annotations

import resource
import sys

import torch

RSS_UNIT = 1 if sys.platform == "darwin" else 2**10  # bytes in one unit of ru_maxrss


def forget_peak(device: torch.device) -> None:
    """Reset the recorded peak of a GPU; the peak of a process on a CPU can't be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in units of 2^20 bytes.

    Returns:
        On a GPU: peak memory of this process's tensors there since ``forget_peak``. On a CPU: peak
        memory of the process since it started, including earlier work.

    Example:
        >>> peak_memory_mb(torch.device("cpu")) > 10
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 2**20
