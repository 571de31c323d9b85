"""Demonstration: the singular values of a real gradient before and after NOG."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from orthocond.report.demonstrations.real_steps import RealStep
from orthocond.report.figures.edge_labels import EdgeLabel, add_labels
from orthocond.report.style import BLUE, COLUMN, GREEN, ORANGE, PINK, RED
from orthocond.spectral import spectra
from orthocond.spectral.polar import polar_factor


def data(steps: Iterable[RealStep]) -> pd.DataFrame:
    """Return the singular values of each gradient and of its polar factor.

    Returns:
        Columns step, index (from 1), before (relative to the largest) and after.
    """
    rows = []
    for real in steps:
        before = spectra.singular_values(real.gradient)
        after = spectra.singular_values(polar_factor(real.gradient))
        for index, (b, a) in enumerate(zip(before / before[0], after, strict=True), 1):
            rows.append({"step": real.step, "index": index, "before": b.item(), "after": a.item()})
    return pd.DataFrame(rows)


def angles(steps: Iterable[RealStep]) -> pd.DataFrame:
    """Return how the polar factor differs from each gradient (eqs. 17a and 17b).

    Returns:
        Columns step, norm (of the gradient), kappa (of the gradient), length (of its polar factor)
        and angle (between the two, in degrees).
    """
    rows = []
    for real in steps:
        G, R = real.gradient, polar_factor(real.gradient)
        cosine = (G * R).sum() / (G.norm() * R.norm())
        rows.append(
            {
                "step": real.step,
                "norm": G.norm().item(),
                "kappa": torch.linalg.cond(G).item(),
                "length": R.norm().item(),
                "angle": torch.rad2deg(cosine.acos()).item(),
            }
        )
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the singular values on a log axis, one line per step, in the current theme."""
    figure, axis = plt.subplots(figsize=(COLUMN, 3.0))
    steps = frame["step"].unique()
    labels = []
    looks = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"))
    for step, (color, line) in zip(steps, looks, strict=False):
        own = frame[frame["step"] == step]
        axis.semilogy(own["index"], own["before"], line, color=color)
        labels.append(EdgeLabel(float(own["before"].iloc[-1]), f"gradient, step {step}", color))
    last = frame[frame["step"] == steps[-1]]
    axis.semilogy(last["index"], last["after"], "o", color=RED, markersize=3)
    labels.append(EdgeLabel(float(last["after"].iloc[-1]), "after NOG", RED))
    axis.set(xlabel="index", ylabel="singular value")
    axis.margins(x=0)
    add_labels(figure, {axis: labels})
    return figure


def alt(frame: pd.DataFrame) -> str:
    """Return a text that says what the figure shows."""
    smallest = frame.groupby("step")["before"].min()
    return (
        "Singular values of the gradient of a stem, relative to the largest. The smallest is "
        + ", ".join(f"{value:.1e} at step {step}" for step, value in smallest.items())
        + f". After NOG all of them are between {frame['after'].min():.6f} and "
        f"{frame['after'].max():.6f}."
    )
