"""Training on more processes: what was measured on one and on two, and a model of up to 512.

Note [The model]
    Each process takes b images a step. Its own work takes s + b t seconds, of which s does not
    depend on the images: the decomposition, the optimizer, the launch of each operation. Then the
    messages of the step are summed over p processes on a ring: each of n bytes goes around in
    2 (p - 1) hops of n / p bytes, each of which takes a latency and its bytes over a bandwidth,
        T(p) = s + b t + sum over messages of 2 (p - 1) (latency + n / (p bandwidth)).
    s and t come from the measured steps of one process with b and 2 b images. Nothing is taken to
    overlap, though DDP sends gradients while it computes others, and all machines are taken to be
    equally fast. The latency and the bandwidth are assumptions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

PROCESSES = (1, 2, 8, 32, 128, 512)


class Network(NamedTuple):
    """What is assumed of the network between processes."""

    latency: float  # seconds a hop
    bandwidth: float  # bytes/s


ETHERNET = Network(latency=50e-6, bandwidth=1.25e9)  # of 10 Gbit/s


class Step(NamedTuple):
    """A process's part of a step, from measurements."""

    images: int  # b
    fixed: float  # s
    per_image: float  # t
    meta: tuple[float, float]  # bytes and messages that the meta-layer hands to the collective
    gradient: tuple[float, float]


def on_the_ring(size: float, processes: int) -> float:
    """Bytes that each process sends to sum a message of this size over the processes.

    Example:
        >>> [on_the_ring(1000, p) for p in (1, 2, 10)]
        [0.0, 1000.0, 1800.0]
    """
    return 2 * (processes - 1) / processes * size


def seconds(step: Step, processes: int, network: Network) -> float:
    """T(p) of Note [The model]."""
    hops = 2 * (processes - 1) * (step.meta[1] + step.gradient[1])
    sent = on_the_ring(step.meta[0] + step.gradient[0], processes)
    own = step.fixed + step.images * step.per_image
    return own + hops * network.latency + sent / network.bandwidth


def _step(rows: list[dict[str, Any]]) -> Step:
    """From the measured rows of one case: one process with b and with 2 b images, two with b."""
    alone = {row["batch"]: row["seconds"] for row in rows if row["processes"] == 1}
    (shared,) = (row for row in rows if row["processes"] == 2)
    b = min(alone)
    per_image = (alone[2 * b] - alone[b]) / b
    messages = [(shared[f"{who}_bytes"], shared[f"{who}_messages"]) for who in ("meta", "gradient")]
    return Step(b, alone[b] - b * per_image, per_image, *messages)


def build(measured: dict[str, Any], network: Network = ETHERNET) -> pd.DataFrame:
    """Images per second and bytes against processes.

    Args:
        measured: the content of benchmarks/results/processes.json.
        network: of the model.

    Returns:
        A row a case and number of processes: images/s, the model's beside those of as many
        processes alone, and the kilobytes that each process sends in a step, by the count of what
        is summed and by the system's count of all.
    """
    table = []
    for case in dict.fromkeys(row["case"] for row in measured["rows"]):
        rows = [row for row in measured["rows"] if row["case"] == case]
        step = _step(rows)
        found = {r["processes"]: r for r in rows if r["batch"] == r["processes"] * step.images}
        alone = step.images / seconds(step, 1, network)
        for p in PROCESSES:
            images = p * step.images / seconds(step, p, network)
            seen = found.get(p)
            table.append(
                {
                    "case": case,
                    "processes": p,
                    "images/s measured": seen and seen["batch"] / seen["seconds"],
                    "images/s modelled": images,
                    "of p alone": images / (p * alone),
                    "meta-layer kB": on_the_ring(step.meta[0], p) / 1e3,
                    "gradient kB": on_the_ring(step.gradient[0], p) / 1e3,
                    "all sent kB": seen and seen["sent"] / 1e3,
                }
            )
    return pd.DataFrame(table)
