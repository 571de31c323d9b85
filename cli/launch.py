"""Start the same command in several processes, on one machine or many, as torchrun does.

The launcher of torchrun is called directly. The torchrun command would print a traceback and exit
with 1, where orthocond must pass on a signal or the exit code of a process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys


def inside_launcher() -> bool:
    """Return whether torchrun, accelerate launch or ``launch`` started this process."""
    return "WORLD_SIZE" in os.environ


def require_started(processes: int) -> None:
    """Check that the launcher of this process started this number of processes here.

    Raises:
        UserError: it started another number, or WORLD_SIZE is set although there is no launcher.
    """
    name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in os.environ else "WORLD_SIZE"
    if os.environ[name] != str(processes):
        from orthocond.errors import UserError

        raise UserError(
            f"--num-processes {processes} starts no process, since {name}={os.environ[name]} is "
            f"in the environment, as under a launcher: leave out --num-processes, or unset {name}"
        )


def launch(
    processes: int,
    arguments: list[str],
    machines: int = 1,
    rendezvous: str = "localhost:0",
    timeout: float = 600,
) -> int:
    """Run ``orthocond`` with the same arguments in each process, and return one exit code.

    If a process dies, the others are stopped, and the message names the process that died first.

    Args:
        processes: number of processes on this machine.
        arguments: arguments of the command.
        machines: number of machines; this function is called on each, with the same arguments.
        rendezvous: where the machines meet, as ``host:port`` of one of them.
        timeout: seconds to wait for the other machines.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    wait = int(timeout) if machines > 1 else 600  # a single machine waits for no other
    config = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=processes,
        run_id="orthocond",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous,
        rdzv_configs={"join_timeout": wait, "read_timeout": wait},
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "orthocond_cli", *arguments)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except RendezvousError:
        print(
            f"orthocond: {machines} machines did not meet at {rendezvous} within {timeout:g} s",
            file=sys.stderr,
        )
        return 1
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"orthocond: process {rank} was ended by {name}", file=sys.stderr)
            return 1
        return failure.exitcode
    return 0
