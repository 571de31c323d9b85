"""Error that names the process of a group that no longer answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from orthocond.errors import UserError
from orthocond.layers.moments import is_distributed

ROLL_CALL = 10.0  # seconds: the other processes stop waiting within about one training step


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
