"""The most memory that was held at a time."""

from __future__ import annotations

import resource
import sys

import torch

RSS_UNIT = 1 if sys.platform == "darwin" else 2**10  # bytes of ru_maxrss's unit


def forget_peak(device: torch.device) -> None:
    """Start the peak of a GPU anew; the system's record of a process has no such thing."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """The peak in units of 2^20 bytes.

    Returns:
        Of a GPU, what tensors of this process held there at most since ``forget_peak``. Of a CPU,
        what the process held at most since its start, for whatever it did before included.

    Example:
        >>> peak_memory_mb(torch.device("cpu")) > 10
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 2**20
