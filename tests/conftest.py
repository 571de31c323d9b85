"""What all tests share: one thread a worker, and how hypothesis looks for mutants."""

from __future__ import annotations

import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)

# A killed mutant need not be shrunk to its smallest example, and is killed by the same one again.
settings.register_profile(
    "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
