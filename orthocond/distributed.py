"""Collectives over the processes of torch.distributed, and the error that names a lost process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from orthocond.errors import UserError

ROLL_CALL = 10.0  # seconds: the other processes stop waiting within about one training step


def is_distributed() -> bool:
    """Return whether other processes hold parts of the batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Sum(torch.autograd.Function):
    # Every process adds its loss to the total. So dl/dx is the sum of what all processes pass back.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(g)
        return total


def reduced(*tensors: Tensor) -> list[Tensor]:
    """Return the sums of the tensors over all processes, communicated in one all-reduce.

    The sums are differentiable to any order. The gradient is that of the sum of all processes'
    losses, and every process must take part in the backward pass.

    Args:
        tensors: of one dtype, with the same shapes on all processes. A single process gets them
            back unchanged.

    Example:
        >>> reduced(torch.tensor(2.0), torch.ones(2))
        [tensor(2.), tensor([1., 1.])]
    """
    if not is_distributed():
        return list(tensors)
    flat = torch.cat([t.flatten() for t in tensors])
    if torch.is_grad_enabled() and flat.requires_grad:
        flat = _Sum.apply(flat)
    else:
        dist.all_reduce(flat)
    parts = flat.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


def gathered(rows: Tensor) -> Tensor:
    """Return the rows (b, k) of all processes, concatenated in process order.

    The number of rows b may differ between processes. A single process gets its rows back
    unchanged.

    Example:
        >>> gathered(torch.ones(1, 2))
        tensor([[1., 1.]])
    """
    if not is_distributed():
        return rows
    world = dist.get_world_size()
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    longest = int(torch.cat(counts).max())
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])


class ProcessLost(UserError):
    """Error for a process of the group that no longer answers."""

    exit_code = 1


def _answering(seconds: float) -> list[bool]:
    """Return for each rank whether it answers, over the store that the group was created with."""
    wait = timedelta(seconds=seconds)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=wait)
    store.set(f"orthocond/answer/{dist.get_rank()}", "here")
    answers = []
    for rank in range(dist.get_world_size()):
        try:
            store.wait([f"orthocond/answer/{rank}"], wait)
        except dist.DistError:
            answers.append(False)
        else:
            answers.append(True)
    return answers


@contextmanager
def lost_processes_named(timeout: float) -> Iterator[None]:
    """Replace the error of a failed collective operation by one that names the lost rank.

    Args:
        timeout: seconds that the group waits in a collective operation.

    Raises:
        ProcessLost: a collective operation inside failed. The last saved state is intact.
    """
    try:
        yield
    except RuntimeError as error:
        of_group = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
        if not (of_group and is_distributed()):
            raise
        world = dist.get_world_size()
        try:
            answers = _answering(min(timeout, ROLL_CALL))
        except dist.DistError:  # rank 0 is lost: it held the store
            answers = [False] + [True] * (world - 1)
        lost = ", ".join(str(rank) for rank, here in enumerate(answers) if not here)
        who = f"process {lost} of {world} is lost" if lost else "the connection was lost"
        raise ProcessLost(
            f"{who} (timeout {timeout:g} s): run the same command again to resume from the last "
            "saved state"
        ) from error
