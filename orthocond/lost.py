"""Which process of a group is lost, told by those that wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from orthocond.errors import UserError
from orthocond.layers.moments import is_distributed

ROLL_CALL = 10.0  # seconds: all that live stop waiting about a step's time apart


class ProcessLost(UserError):
    """Another process of the group does not answer any more."""

    exit_code = 1


def _answering(seconds: float) -> list[bool]:
    """Which ranks answer, each asked over the store that the group was founded with."""
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
    """Turn the failure of a collective operation into a line with the rank that is lost.

    Args:
        timeout: seconds that the group waits, for the line.

    Raises:
        ProcessLost: a collective operation inside failed. The state saved last is intact.
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
        except dist.DistError:  # the store was with rank 0
            answers = [False] + [True] * (world - 1)
        lost = ", ".join(str(rank) for rank, here in enumerate(answers) if not here)
        who = f"process {lost} of {world} is lost" if lost else "the connection was lost"
        raise ProcessLost(
            f"{who} (timeout {timeout:g} s): the same command goes on from the state saved last"
        ) from error
