"""Cost of a training step on one process and on two: seconds and bytes sent.

The steps are real training steps (``orthocond.training.stepper``) on one batch that the processes
share. The bytes that the meta-layer and DDP sum over processes are counted where they call
all_reduce. The bytes that each process sends are read from the TCP counters of its sockets
(Linux). Each process has one thread, so two processes use twice the cores of one.

python benchmarks/processes.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import RESULTS, write
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from orthocond.config.schema import Config, DataConfig
from orthocond.measure.timer import WARMUP, median_seconds
from orthocond.training.accelerator import make_accelerator
from orthocond.training.allocator import keep_memory
from orthocond.training.signals import StopSignal
from orthocond.training.stepper import Stepper

BATCH, CLASSES = 128, 10
CASES = {
    "dbn bn": ("dbn", "bn", 32),
    "dbn svd": ("dbn", "svd", 32),
    "gcp gap": ("gcp", "gap", 64),
    "gcp svd": ("gcp", "svd", 64),
}
PLACES = [(1, BATCH), (1, BATCH // 2), (2, BATCH)]  # processes, images per step in total
CALLERS = {"orthocond.distributed": "meta", default_hooks.__name__: "gradient"}
BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info


def sent() -> int:
    """Return the bytes that this process has sent on its open TCP connections."""
    total = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=os.dup(int(fd)))
        except OSError:  # not a socket
            continue
        with connection:
            if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", info, BYTES_SENT)[0]
    return total


@contextmanager
def counted() -> Iterator[dict[str, list[int]]]:
    """Record the bytes of each message that is summed over processes, by purpose."""
    messages: dict[str, list[int]] = {name: [] for name in CALLERS.values()}
    all_reduce = dist.all_reduce

    def count(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if caller in CALLERS:
            messages[CALLERS[caller]].append(tensor.nbytes)
        return all_reduce(tensor, *args, **kwargs)

    dist.all_reduce = count
    try:
        yield messages
    finally:
        dist.all_reduce = all_reduce


def stepper(case: str, batch: int) -> tuple[Stepper, Tensor, Tensor]:
    """Return the stepper, and this process's images and labels of a batch."""
    task, method, size = CASES[case]
    accelerator = make_accelerator("float32", 600)
    config = Config(
        task=task, method=method, batch_size=batch, channels_last=True, data=DataConfig(size=size)
    )
    made = Stepper(config, CLASSES, 1, accelerator, StopSignal())
    generator = torch.Generator().manual_seed(accelerator.process_index)
    images = torch.randn(batch // accelerator.num_processes, 3, size, size, generator=generator)
    return made, images, torch.arange(len(images)) % CLASSES


def measure(case: str, batch: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a step, and the bytes and messages per step."""
    made, images, labels = stepper(case, batch)
    if isinstance(made.network, DistributedDataParallel):
        # The hook sums as DDP does, but in Python, where ``counted`` sees it.
        made.network.register_comm_hook(None, default_hooks.allreduce_hook)
    made.model.train()
    for _ in range(WARMUP):
        made.take_step(images, labels)
    before = sent()
    with counted() as messages:
        medians = median_seconds({case: lambda: made.take_step(images, labels)}, rounds, warmup=0)
    found = {"seconds": medians[case], "sent": (sent() - before) / rounds}
    for name, sizes in messages.items():
        found |= {f"{name}_bytes": sum(sizes) / rounds, f"{name}_messages": len(sizes) / rounds}
    return found


def process(rank: int, world: int, port: int, batch: int, rounds: int, out: str) -> None:
    """Measure every case in one process of a group, and write this process's results."""
    os.environ["OMP_NUM_THREADS"] = "1"  # accelerate asks for it
    torch.set_num_threads(1)
    keep_memory()
    if world > 1:
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in group.items()}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    found = {case: measure(case, batch, rounds) for case in CASES}
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    if world > 1:
        dist.destroy_process_group()


def together(world: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row per case: seconds of the slowest process, mean bytes and messages."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        arguments = (world, port, batch, rounds, folder)
        torch.multiprocessing.spawn(process, arguments, nprocs=world)
        each = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    rows = []
    for case in CASES:
        found = [one[case] for one in each]
        row = {key: statistics.mean(f[key] for f in found) for key in found[0]}
        row["seconds"] = max(f["seconds"] for f in found)
        rows.append({"case": case, "processes": world, "batch": batch} | row)
        print(
            f"{case:10s} {world} x {batch // world:4d} images {row['seconds']:8.4f} s", flush=True
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rows = [row for place in PLACES for row in together(*place, arguments.rounds)]
    write(RESULTS, "processes", threads=1, rounds=arguments.rounds, rows=rows)


if __name__ == "__main__":
    main()
