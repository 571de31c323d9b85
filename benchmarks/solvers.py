"""Time of the inverse square root by each solver, forward and with its backward.

The matrices are float32 covariances with a condition number of 1e4, from 16 x 16 to 512 x 512 and
one by one or in batches. On CUDA the solver eigh is also timed on the CPU, with both transfers. The
benchmark prints, for each batch size, from which d on minimax is faster than eigh.

python benchmarks/solvers.py [--minutes M] [--out FOLDER] [--threads 2] [--largest 512]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from common import RESULTS, begin, show, write
from torch import Tensor

from orthocond.measure.timer import median_seconds
from orthocond.spectral.minimax import schedule
from orthocond.spectral.root_solvers import Method, root_backward, root_forward

SIZES = [16, 32, 64, 128, 256, 512]
BATCHES = [1, 4, 16, 64, 256]
CONDITION = 1e4
LARGEST = 2**26  # entries of a batch: 0.5 GB in float64, of which the backward needs about ten
METHODS = {
    "eigh": Method("eigh"),
    "minimax": Method("minimax", quintics=schedule(1e6)),  # the default of the layers
    "newton-schulz": Method("newton-schulz"),
}

Tables = dict[str, dict[str, dict[str, float]]]  # pass -> shape -> case -> seconds


def covariances(batch: int, d: int, device: str) -> Tensor:
    """Return matrices (batch, d, d) that share their eigenvectors, which costs no time to draw."""
    Q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q
    l = CONDITION ** -torch.rand(batch, d, dtype=torch.float64)
    l[:, 0], l[:, -1] = 1, 1 / CONDITION
    return ((Q * l.unsqueeze(-2)) @ Q.mT).float().to(device)


def solve(P: Tensor, g: Tensor | None, method: Method, on: str | None = None) -> None:
    """Compute the inverse root, and with g = dl/dF its gradient, on another device if named."""
    back = P.device
    if on is not None:
        P, g = P.to(on), None if g is None else g.to(on)
    root = root_forward(P, "inv_sqrt", 0.0, method)
    results = [root.value]
    if g is not None:
        results.append(root_backward(root.factors, g, "inv_sqrt", root.method))
    if on is not None:
        results = [result.to(back) for result in results]


def cases(P: Tensor, g: Tensor | None) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        name: partial(solve, P, g, method) for name, method in METHODS.items()
    }
    if P.device.type == "cuda":
        found["eigh on the CPU"] = partial(solve, P, g, METHODS["eigh"], "cpu")
    return found


def shapes(largest: int) -> Iterator[tuple[int, int]]:
    """Yield batch sizes and d in order of their cost, without those over the memory limit."""
    pairs = [(b, d) for b in BATCHES for d in SIZES if d <= largest and b * d * d <= LARGEST]
    yield from sorted(pairs, key=lambda pair: pair[0] * pair[1] ** 3)


def medians_within(by: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return the median seconds of each case over 1 to 30 rounds, as many as fit into the time."""
    once = sum(median_seconds(by, 1, warmup=1).values())
    return median_seconds(by, max(1, min(30, int(seconds / once) - 2)), warmup=0)


def crossover(table: dict[str, dict[str, float]], batch: int) -> int | None:
    """Return the smallest d from which on minimax is faster than every eigh, None if there is none.

    ``table`` holds the medians by case for the names of ``label``.
    """
    first = None
    for d in SIZES:
        medians = table.get(label(batch, d))
        if medians is None:
            continue
        best = min(s for name, s in medians.items() if name.startswith("eigh"))
        if medians["minimax"] >= best:
            first = None
        elif first is None:
            first = d
    return first


def label(batch: int, d: int) -> str:
    return f"{batch} x {d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after these minutes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, default=max(SIZES), help="largest d")
    arguments = parser.parse_args()
    device = begin(arguments.threads)
    end = time.monotonic() + 60 * arguments.minutes
    tables: Tables = {"forward": {}, "forward_backward": {}}
    found: dict[str, dict[str, int | None]] = {}
    planned = list(shapes(arguments.largest))
    for done, (batch, d) in enumerate(planned):
        left = end - time.monotonic()
        if left <= 0:
            print(f"out of time: {len(planned) - done} of {len(planned)} shapes were left out")
            break
        P = covariances(batch, d, device)
        for name, g in (("forward", None), ("forward_backward", torch.randn_like(P))):
            by = cases(P, g)
            share = left / (len(planned) - done) / 2  # this table's part of the time
            tables[name][label(batch, d)] = medians_within(by, share)
            show(f"{name}, {label(batch, d)}", tables[name][label(batch, d)], "eigh")
        found = save(arguments.out, device, tables)  # now, since the command may be stopped
    for name, by_batch in found.items():
        for batch, size in by_batch.items():
            where = f"from d = {size} on" if size else "at no d"
            print(f"{name}, batch {batch}: minimax is faster than eigh {where}")


def save(folder: Path, device: str, tables: Tables) -> dict[str, dict[str, int | None]]:
    """Write the medians so far, and return from which d on minimax is faster, by batch size."""
    found = {
        name: {str(batch): crossover(table, batch) for batch in BATCHES}
        for name, table in tables.items()
    }
    flat = {f"{name}, {at}": row for name, table in tables.items() for at, row in table.items()}
    beside = device == "cuda" and folder == RESULTS  # the CPU's result is in that folder
    name = "solvers-cuda" if beside else "solvers"
    write(folder, name, median_seconds=flat, crossover=found)
    return found


if __name__ == "__main__":
    main()
