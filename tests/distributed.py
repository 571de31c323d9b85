"""Two gloo processes inside a test."""

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


def in_processes(work: Callable[[int], Any], folder: Path, world: int = 2) -> list[Any]:
    """What ``work(rank)`` gives in each process: tensors, numbers, lists and dicts of them.

    The processes are forked, so that ``work`` may be a function in a test; it must not call
    ``backward``, whose threads do not survive a fork.
    """
    mp.start_processes(_process, (work, folder, world), nprocs=world, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]
