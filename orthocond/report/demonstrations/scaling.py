"""Training on several processes: measurements for 1 and 2, and a model for up to 512.

Note [The model]
    Each process takes b images per step. Its own work takes s + b t seconds. The part s does not
    depend on the number of images: the decomposition, the optimizer, the launch of each
    operation. Then the messages of the step are summed over p processes on a ring. A message of
    n bytes takes 2 (p - 1) hops of n / p bytes. Each hop takes the latency plus its bytes divided
    by the bandwidth, so
        T(p) = s + b t + sum over messages of 2 (p - 1) (latency + n / (p bandwidth)).
    s and t come from measured steps of one process with b and 2 b images. The model assumes that
    computation and communication do not overlap, although DDP sends some gradients while it
    computes others. It also assumes that all machines are equally fast. The latency and the
    bandwidth are assumptions, not measurements.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

PROCESSES = (1, 2, 8, 32, 128, 512)


class Network(NamedTuple):
    """Assumed properties of the network between processes."""

    latency: float  # seconds per hop
    bandwidth: float  # bytes/s


ETHERNET = Network(latency=50e-6, bandwidth=1.25e9)  # 10 Gbit/s


class Step(NamedTuple):
    """Measured cost of one process's part of a step, in the symbols of Note [The model]."""

    images: int  # b
    fixed: float  # s, in seconds
    per_image: float  # t, in seconds
    meta: tuple[float, float]  # bytes and messages that the meta-layer sums over processes
    gradient: tuple[float, float]  # bytes and messages of the gradients


def on_the_ring(size: float, processes: int) -> float:
    """Return the bytes that each process sends to sum a message of ``size`` bytes.

    Example:
        >>> [on_the_ring(1000, p) for p in (1, 2, 10)]
        [0.0, 1000.0, 1800.0]
    """
    return 2 * (processes - 1) / processes * size


def seconds(step: Step, processes: int, network: Network) -> float:
    """Return the seconds of a step, T(p) of Note [The model]."""
    hops = 2 * (processes - 1) * (step.meta[1] + step.gradient[1])
    sent = on_the_ring(step.meta[0] + step.gradient[0], processes)
    own = step.fixed + step.images * step.per_image
    return own + hops * network.latency + sent / network.bandwidth


def _step(rows: list[dict[str, Any]]) -> Step:
    """Return the step of one case from its measured rows.

    The rows are one process with b and with 2 b images, and two processes.
    """
    alone = {row["batch"]: row["seconds"] for row in rows if row["processes"] == 1}
    (shared,) = (row for row in rows if row["processes"] == 2)
    b = min(alone)
    per_image = (alone[2 * b] - alone[b]) / b
    messages = [(shared[f"{who}_bytes"], shared[f"{who}_messages"]) for who in ("meta", "gradient")]
    return Step(b, alone[b] - b * per_image, per_image, *messages)


def build(measured: dict[str, Any], network: Network = ETHERNET) -> pd.DataFrame:
    """Return images per second and bytes sent for each number of processes.

    Args:
        measured: content of benchmarks/results/processes.json.
        network: network of the model.

    Returns:
        One row per case and number of processes p: images/s measured and modelled; the modelled
        images/s as a fraction of p independent processes; and the kilobytes that each process
        sends in a step, computed from the summed messages and counted by the operating system.
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
                    "efficiency": images / (p * alone),
                    "meta-layer kB": on_the_ring(step.meta[0], p) / 1e3,
                    "gradient kB": on_the_ring(step.gradient[0], p) / 1e3,
                    "all sent kB": seen and seen["sent"] / 1e3,
                }
            )
    return pd.DataFrame(table)
