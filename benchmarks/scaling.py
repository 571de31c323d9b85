"""Cost of the meta-layers against channels, positions and samples, as data and figure.

The benchmark times forward and backward passes of the low-rank root, the full root, Newton-Schulz
and decorrelated batch norm. It also times both ways to compute the low-rank root (by an N x N and
by a d x d matrix) around N = d, where ``covariance_sqrt`` changes from one to the other.

python benchmarks/scaling.py [--rounds 5] [--threads 2]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from common import begin, machine, options
from gcp import full, iterated
from torch import Tensor

from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.measure.timer import median_seconds
from orthocond.spectral.covariance import lowrank

SWEEPS = {  # samples, channels d, positions N
    "channels": [(4, 2**k, 196) for k in range(4, 11)],
    "positions": [(4, 256, 2**k) for k in range(4, 13)],
    "samples": [(2**k, 96, 64) for k in range(9)],
}
CROSSOVER = [(8, d, d * share // 8) for d in (96, 256) for share in (2, 4, 6, 7, 8, 9, 10, 12, 16)]

Function = Callable[[Tensor], Tensor]


def layers(channels: int, device: str) -> dict[str, Function]:
    norm = DecorrelatedBatchNorm2d(channels).to(device)
    return {
        "low-rank": lowrank.covariance_sqrt,
        "full": full,
        "newton-schulz": iterated,
        "decorrelated batch norm": lambda X: norm(X.unsqueeze(-1)),
    }


def one_side(by_positions: bool, X: Tensor) -> Tensor:
    """Return the low-rank root by the N x N or the d x d matrix, whichever is smaller."""
    chosen = lowrank.by_positions
    lowrank.by_positions = lambda d, n: by_positions
    try:
        return lowrank.covariance_sqrt(X)
    finally:
        lowrank.by_positions = chosen


def both(function: Function, X: Tensor) -> Tensor:
    X = X.detach().requires_grad_()
    y = function(X)
    return torch.autograd.grad(y, X, y.detach())[0]


def rows(
    sweep: str, shape: tuple[int, int, int], functions: dict[str, Function], rounds: int
) -> Iterator[dict[str, object]]:
    samples, channels, positions = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    X = torch.randn(shape, device=device)
    cases = {name: partial(both, function, X) for name, function in functions.items()}
    for name, seconds in median_seconds(cases, rounds, warmup=2).items():
        print(f"{sweep:10s} {shape!s:18s} {name:24s} {1e3 * seconds:10.3f} ms", flush=True)
        yield {
            "sweep": sweep,
            "solver": name,
            "samples": samples,
            "channels": channels,
            "positions": positions,
            "seconds": float(f"{seconds:.4g}"),
        } | machine()


def measure(rounds: int) -> pd.DataFrame:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table: list[dict[str, object]] = []
    for sweep, shapes in SWEEPS.items():
        for shape in shapes:
            table += rows(sweep, shape, layers(shape[1], device), rounds)
    sides = {
        "by N x N": partial(one_side, True),
        "by d x d": partial(one_side, False),
    }
    for shape in CROSSOVER:
        table += rows("crossover", shape, sides, 3 * rounds)
    return pd.DataFrame(table)


def draw(table: pd.DataFrame, file: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    titles = {
        "channels": "4 samples, 196 positions",
        "positions": "4 samples, 256 channels",
        "samples": "96 channels, 64 positions",
    }
    for ax, (sweep, title) in zip(axes.flat, titles.items(), strict=False):
        for solver, part in table[table.sweep == sweep].groupby("solver", sort=False):
            ax.plot(part[sweep], 1e3 * part.seconds, marker="o", markersize=3, label=solver)
        ax.set(xscale="log", yscale="log", xlabel=sweep, ylabel="milliseconds", title=title)
        ax.set_xscale("log", base=2)
    axes[0, 0].legend(frameon=False, fontsize="small")
    ax = axes[1, 1]
    crossover = table[table.sweep == "crossover"]
    for d, part in crossover.groupby("channels"):
        seconds = part.pivot(index="positions", columns="solver", values="seconds")
        ax.plot(seconds.index / d, seconds["by N x N"] / seconds["by d x d"], marker="o", label=d)
    ax.axhline(1, color="0.7", linewidth=1, zorder=0)
    ax.axvline(1, color="0.7", linewidth=1, zorder=0)
    ax.set(yscale="log", xlabel="N / d", ylabel="time by N x N / by d x d", title="Which side")
    ax.legend(title="d", frameon=False, fontsize="small")
    where = {key: str(table[key].iloc[0]) for key in ("device", "threads", "torch")}
    figure.suptitle(
        "Forward and backward: {device}, {threads} threads, torch {torch}".format(**where)
    )
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    arguments = options(__doc__, 5, draw_only="only draw the figure, from the stored data")
    plt.switch_backend("Agg")
    plt.rcParams["svg.hashsalt"] = "scaling"
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.out / "scaling.csv"
    if not arguments.draw_only:
        begin(arguments.threads)
        measure(arguments.rounds).to_csv(data, index=False)
    draw(pd.read_csv(data), data.with_suffix(".svg"))


if __name__ == "__main__":
    main()
