"""Demonstration: the paper's rate for orthogonal weight and gradient (Proposition 1)."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from orthocond.report.figures.edge_labels import EdgeLabel, add_labels
from orthocond.report.style import BLUE, COLUMN, GREY, ORANGE, RED, SMALL, page_color
from orthocond.spectral.learning_rate import optimal_lr

BOUND = 1 / (2 * math.sqrt(2))
"""Bound on |eta*|, where eta* = N t / (N^2 + 2 t^2); it is reached at t = ±N / sqrt(2)."""


def orthogonal_pair(N: int, angle: float) -> tuple[Tensor, Tensor]:
    """Return W = I and an orthogonal G with <G, W> = N cos(angle), both N x N in float64.

    G is block-diagonal with N/2 rotations by the angle, so N must be even.
    """
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return torch.eye(N, dtype=torch.float64), torch.block_diag(*[turn] * (N // 2))


def data(N: int = 64, points: int = 181, draws: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return the paper's learning rate for pairs of orthogonal N x N matrices.

    Returns:
        Columns pair (``rotations``, which reach every t, or ``random``), t (the inner product of
        the pair) and eta.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = [("rotations", *orthogonal_pair(N, math.pi * i / (points - 1))) for i in range(points)]
    for _ in range(draws):
        gaussian = torch.randn(2, N, N, generator=generator, dtype=torch.float64)
        W, G = torch.linalg.qr(gaussian).Q
        pairs.append(("random", W, G))
    return pd.DataFrame(
        [
            {"pair": pair, "t": (W * G).sum().item(), "eta": optimal_lr(W, G).item()}
            for pair, W, G in pairs
        ]
    )


def draw(frame: pd.DataFrame, N: int = 64) -> Figure:
    """Draw eta* over t with the paper's bounds and the true ones, in the current theme."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.8))
    curve = frame[frame["pair"] == "rotations"]
    points = frame[frame["pair"] == "random"]
    axis.plot(curve["t"], curve["eta"], color=BLUE)
    axis.plot(points["t"], points["eta"], "o", color=ORANGE, markersize=3)
    center = float(points["t"].abs().max())
    axis.annotate(
        "random pairs", (center, 0), (20, -14), textcoords="offset points", fontsize=SMALL,
        arrowprops={"arrowstyle": "-", "color": ORANGE},
    )  # fmt: skip
    limits = {
        f"paper: at most {N**2 / (N**2 + 2):.2g}": (N**2 / (N**2 + 2), RED, ":"),
        f"paper: at least {1 / (N**2 + 2):.2g}": (1 / (N**2 + 2), RED, ":"),
        r"at most $1/\sqrt{8}$": (BOUND, GREY, "--"),
        r"at least $-1/\sqrt{8}$": (-BOUND, GREY, "--"),
    }
    for value, color, line in limits.values():
        axis.axhline(value, color=page_color(color), linestyle=line)
    axis.set(xlabel=rf"$t = \langle G, W \rangle$, $N = {N}$", ylabel=r"$\eta^*$")
    labels = [EdgeLabel(v, text, page_color(color)) for text, (v, color, _) in limits.items()]
    add_labels(figure, {axis: labels})
    return figure


def alt(frame: pd.DataFrame) -> str:
    """Return a text that says what the figure shows."""
    eta = frame["eta"]
    return (
        "The paper's learning rate over the inner product t of an orthogonal weight and an "
        f"orthogonal gradient. It runs from {eta.min():.4f} to {eta.max():.4f}, is zero at t = 0 "
        "and negative for negative t: the paper's upper bound is loose, its lower one "
        "fails for more than half of all pairs."
    )
