"""Time and error of the polar factor against torch.linalg.svd.

python benchmarks/polar.py [--rounds 300] [--threads 2]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import begin, options, show, write
from torch import Tensor

from orthocond.measure.timer import median_seconds
from orthocond.spectral.polar import polar_factor

SHAPES = [(64, 27), (64, 576), (96, 128), (256, 512)]
CONDITIONS = [1e1, 1e3, 1e4]


def by_svd(G: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return U @ Vh


def by_double_svd(G: Tensor) -> Tensor:
    return by_svd(G.double()).to(G.dtype)


FACTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "orthocond": polar_factor,
    "svd float32": by_svd,
    "svd float64": by_double_svd,
}


def gradient(m: int, n: int, kappa: float, device: str) -> Tensor:
    U, _, Vh = torch.linalg.svd(torch.randn(m, n, dtype=torch.float64), full_matrices=False)
    s = torch.logspace(0, -torch.tensor(kappa).log10(), min(m, n), dtype=torch.float64)
    return ((U * s) @ Vh).float().to(device)


def error(R: Tensor, exact: Tensor) -> float:
    """Return the largest singular value of the difference, which is at most 2."""
    return float(torch.linalg.matrix_norm(R.double() - exact, 2))


def main() -> None:
    arguments = options(__doc__, 300)
    device = begin(arguments.threads)
    medians, wrong = {}, {}
    for m, n in SHAPES:
        shape = f"{m}x{n}"
        G = gradient(m, n, 10.0, device)
        cases = {name: partial(factor, G) for name, factor in FACTORS.items()}
        medians[shape] = median_seconds(cases, arguments.rounds, warmup=20)
        show(shape, medians[shape], "orthocond")
        wrong[shape] = {}
        for kappa in CONDITIONS:
            G = gradient(m, n, kappa, device)
            exact = by_svd(G.double())
            errors = {name: error(factor(G), exact) for name, factor in FACTORS.items()}
            wrong[shape][f"{kappa:.0e}"] = errors
            print(f"  kappa {kappa:.0e}: " + ", ".join(f"{k} {e:.0e}" for k, e in errors.items()))
    write(arguments.out, "polar", median_seconds=medians, spectral_norm_errors=wrong)


if __name__ == "__main__":
    main()
