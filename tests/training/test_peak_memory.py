"""The peak is at least what is held now, and a GPU's is forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from orthocond.training.peak_memory import forget_peak, peak_memory_mb

STATM = Path("/proc/self/statm")


@pytest.mark.skipif(not STATM.exists(), reason="the memory held now is read from /proc")
def test_peak_memory_on_a_cpu_is_between_the_memory_held_and_the_memory_installed() -> None:
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    held = int(STATM.read_text().split()[1]) * page
    assert 0.9 * held < peak_memory_mb(torch.device("cpu")) < os.sysconf("SC_PHYS_PAGES") * page


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_peak_memory_on_a_gpu_counts_from_the_last_reset() -> None:
    device = torch.device("cuda")
    large = torch.empty(2**28, dtype=torch.uint8, device=device)  # 256 MB
    assert peak_memory_mb(device) >= 256
    before = peak_memory_mb(device)
    del large
    forget_peak(device)
    small = torch.empty(2**20, dtype=torch.uint8, device=device)
    assert 1 <= peak_memory_mb(device) <= before - 255
    del small
