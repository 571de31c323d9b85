"""Cost of the check of an eigendecomposition, as a share of torch.linalg.eigh.

The two are timed in turns, and the shortest time of each counts, because other work on the machine
only adds to it. The matrices are float64 covariances, one by one or in batches.

python benchmarks/eigh.py [--out FOLDER] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import RESULTS, begin, write
from torch import Tensor

from orthocond.spectral.verification import is_eigh

SIZES = [16, 32, 64, 128, 256, 512]
BATCHES = [1, 16]
LARGEST = 2**21  # entries of a batch


def covariances(batch: int, d: int, device: str) -> Tensor:
    X = torch.randn(batch, d, 4 * d, dtype=torch.float64)
    return (X @ X.mT / (4 * d)).to(device)


def shortest(cases: list[Callable[[], object]], device: str, seconds: float = 1.0) -> list[float]:
    """Return the shortest time of each case over at least 5 rounds."""
    best = [float("inf")] * len(cases)
    rounds, end = 0, time.monotonic() + seconds
    while rounds < 5 or (time.monotonic() < end and rounds < 1000):
        for i, case in enumerate(cases):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            case()
            if device == "cuda":
                torch.cuda.synchronize()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    device = begin(arguments.threads)
    table: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        for d in SIZES:
            if batch * d * d > LARGEST:
                continue
            P = covariances(batch, d, device)
            factors = torch.linalg.eigh(P)
            driver, check = shortest(
                [
                    lambda P=P: torch.linalg.eigh(P),
                    lambda P=P, factors=factors: bool(is_eigh(P, *factors).all()),
                ],
                device,
            )
            table[f"{batch} x {d}"] = {"eigh": driver, "check": check}
            print(
                f"{batch} x {d}: eigh {1e3 * driver:.3f} ms, check {1e3 * check:.3f} ms, "
                f"{check / driver:.1%}",
                flush=True,
            )
    write(arguments.out, "eigh-cuda" if device == "cuda" else "eigh", shortest_seconds=table)


if __name__ == "__main__":
    main()
