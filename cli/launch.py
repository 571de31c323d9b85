"""Start the same command on several local processes, through torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
from uuid import uuid4


def inside_launcher() -> bool:
    """Whether torchrun, accelerate launch or ``launch`` started this process."""
    return "WORLD_SIZE" in os.environ


def launch(processes: int, arguments: list[str]) -> int:
    """Run ``orthocond`` with these arguments on each process, and return the exit code of all.

    A process that dies takes the others with it; the one that was first is named.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "orthocond_cli", *arguments)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"orthocond: process {rank} was ended by {name}", file=sys.stderr)
            return 1
        return failure.exitcode
    return 0
