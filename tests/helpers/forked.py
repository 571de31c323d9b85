"""Gloo processes forked from a test: quick, and for work that does not call ``backward``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _process(rank: int, work: Callable[[int], Any], folder: Path, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    try:
        torch.save(work(rank), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_forks(work: Callable[[int], Any], folder: Path, world: int = 2) -> list[Any]:
    """What ``work(rank)`` gives in each process: tensors, numbers, lists and dicts of them.

    ``work`` may be a function inside a test. It must not call ``backward``, whose threads do not
    survive a fork; ``processes.in_processes`` forks from a process without threads.
    """
    mp.start_processes(_process, (work, folder, world), nprocs=world, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]
