"""What all tests share: one thread a worker, and how hypothesis looks for mutants."""

from __future__ import annotations

import os

import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

# A killed mutant need not be shrunk to its smallest example, and is killed by the same one again.
settings.register_profile(
    "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
