"""Demonstration: the gradient error of each backward rule when two eigenvalues are close."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import matplotlib.pyplot as plt
import mpmath  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from orthocond.measure.timer import median_seconds
from orthocond.report.figures.edge_labels import EdgeLabel, add_labels
from orthocond.report.style import BLUE, COLUMN, GREEN, ORANGE, RED
from orthocond.spectral.backward_rules import DEGREE, Backward, Power
from orthocond.spectral.roots import matrix_inv_sqrt, matrix_sqrt

WORKING_DIGITS = 40
OTHERS = (0.5, 0.2, 0.1, 0.05)  # the other eigenvalues, which are far apart
ROOTS: dict[Power, Callable[..., Tensor]] = {"sqrt": matrix_sqrt, "inv_sqrt": matrix_inv_sqrt}
LINES = {"exact": (GREEN, "-"), "pade": (BLUE, "--"), "taylor": (ORANGE, "-."), "raw": (RED, ":")}
TITLES = {"sqrt": "square root", "inv_sqrt": "inverse square root"}


def true_gradient(P: Tensor, g: Tensor, power: Power) -> Tensor:
    """Return the gradient of <g, f(P)> from 40-digit arithmetic: U (D o (U^T sym(g) U)) U^T."""
    with mpmath.workdps(WORKING_DIGITS):
        l, U = mpmath.eigsy(mpmath.matrix(P.tolist()))
        s = [mpmath.sqrt(x) for x in l]
        A = U.T * mpmath.matrix(((g + g.mT) / 2).tolist()) * U
        for i, si in enumerate(s):
            for j, sj in enumerate(s):
                A[i, j] *= 1 / (si + sj) if power == "sqrt" else -1 / (si * sj * (si + sj))
        return torch.tensor((U * A * U.T).tolist(), dtype=torch.float64)


def data(points: int = 25, draws: int = 8, seed: int = 0) -> pd.DataFrame:
    """Return the relative error of the gradient through both roots, for gaps from 1 to 1e-12.

    Returns:
        Columns power, rule, gap, error. The error is the largest value of
        |gradient - true gradient|_F / |true gradient|_F over ``draws`` random 6 x 6 float64
        matrices with the eigenvalues 1, 1 - gap and ``OTHERS``. At gap 1 the second eigenvalue is
        0.01 instead of 0.
    """
    generator = torch.Generator().manual_seed(seed)
    d = 2 + len(OTHERS)
    rows = []
    for gap in np.logspace(0, -12, points):
        l = torch.tensor([1, max(1 - gap, 0.01), *OTHERS], dtype=torch.float64)
        for _ in range(draws):
            U, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
            g = torch.randn(d, d, generator=generator, dtype=torch.float64)
            P = (U * l) @ U.mT
            P = ((P + P.mT) / 2).requires_grad_()
            for power, root in ROOTS.items():
                truth = true_gradient(P.detach(), g, power)
                for rule in get_args(Backward):
                    F = root(P, backward=rule)
                    (gradient,) = torch.autograd.grad((g * F).sum(), P)
                    error = (torch.dist(gradient, truth) / truth.norm()).item()
                    rows.append({"power": power, "rule": rule, "gap": gap, "error": error})
    frame = pd.DataFrame(rows)
    return frame.groupby(["power", "rule", "gap"], sort=False)["error"].max().reset_index()


def costs(d: int = 64, repeats: int = 15) -> pd.DataFrame:
    """Return the cost of each rule: operations per entry of D, and time of a backward pass.

    Returns:
        Columns rule, operations, time (relative to the exact rule; median of interleaved runs).
    """
    operations = {
        "exact": "1 addition, 1 division",
        "raw": "2 subtractions, 1 division, 1 product",
        "taylor": f"{DEGREE + 1} products and additions, 2 divisions, 1 subtraction, 1 product",
        "pade": f"{DEGREE + 2} products and additions, 3 divisions, 1 subtraction, 1 product",
    }
    X = torch.randn(d, 4 * d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    P = (X @ X.mT / (4 * d)).requires_grad_()
    roots = {rule: matrix_sqrt(P, backward=rule).sum() for rule in get_args(Backward)}
    median = median_seconds(
        {r: partial(torch.autograd.grad, y, P, retain_graph=True) for r, y in roots.items()},
        repeats,
        warmup=0,
    )
    return pd.DataFrame(
        [
            {"rule": rule, "operations": text, "time": round(median[rule] / median["exact"], 1)}
            for rule, text in operations.items()
        ]
    )


def draw(errors: pd.DataFrame) -> Figure:
    """Draw one log-log panel per root with one line per rule, in the current theme."""
    figure, axes = plt.subplots(2, 1, figsize=(COLUMN, 4.2), sharex=True)
    labels: dict[Axes, list[EdgeLabel]] = {}
    for axis, (power, panel) in zip(axes, errors.groupby("power", sort=False), strict=True):
        labels[axis] = []
        for rule, line in panel.groupby("rule", sort=False):
            color, dashes = LINES[str(rule)]
            axis.loglog(line.gap, line.error, dashes, color=color)
            end = float(line.sort_values("gap")["error"].iloc[0])
            labels[axis].append(EdgeLabel(end, str(rule), color))
        axis.set_title(TITLES[str(power)], loc="left")
        axis.set_ylabel("relative error")
        axis.margins(x=0)
    axes[0].invert_xaxis()
    axes[1].set_xlabel("gap between two eigenvalues near 1")
    add_labels(figure, labels)
    return figure


def alt(errors: pd.DataFrame) -> str:
    """Return a text that says what the figure shows."""
    near = errors.query("power == 'sqrt' and gap < 2e-12").set_index("rule").error
    return (
        "Relative error of the gradient through the square root and the inverse square root "
        "against the gap between two eigenvalues. At a gap of 1e-12, through the square root: "
        + ", ".join(f"{rule} {error:.0e}" for rule, error in near.items())
        + ". Exact stays at rounding error; raw and Pade lose digits together as the gap closes; "
        "Taylor is wrong by a constant factor below a gap of one hundredth."
    )
