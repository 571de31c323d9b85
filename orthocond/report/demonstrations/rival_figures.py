"""Figures of the comparison with rivals: error against condition number, and against time."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orthocond.report.demonstrations.rivals import OURS, WIDE, Rivals, of_case
from orthocond.report.style import (
    BLUE,
    BROWN,
    COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    page_color,
)

LINES: dict[str, tuple[str | None, str, str]] = {
    "orthocond": (None, "-", "o"),
    "orthocond, float64": (None, "--", "*"),
    "kornia": (BLUE, "--", "s"),
    "kornia, float64": (BLUE, "-", "s"),
    "torch.linalg.eigh": (GREY, "--", "x"),
    "torchspd": (GREEN, "--", "^"),
    "torchspd, float64": (GREEN, "-", "^"),
    "spd_learn": (ORANGE, "--", "v"),
    "spd_learn, float64": (ORANGE, "-", "v"),
    "POT": (PINK, "--", "d"),
    "POT, float64": (PINK, "-", "d"),
    "MPA-Lya": (BROWN, "-.", "P"),
    "IterNorm, T = 5": (RED, ":", "D"),
    "IterNorm, T = 8": (RED, "-.", "h"),
    "iSQRT-COV, N = 5": (RED, ":", "D"),
    "iSQRT-COV, N = 7": (RED, "-.", "h"),
    "torch.optim.Muon": (RED, ":", "D"),
    "CANS, l = 1e-3": (SKY, "--", "p"),
    "CANS, l = 1e-6": (SKY, "-", "p"),
    "torch.linalg.svd": (GREY, "--", "x"),
    "torch.linalg.svd, float64": (GREY, "-", "x"),
}
"""Colour (None: the page's ink), line and marker of the methods that the figures show."""


CONDITIONS = (
    ("whitening", "gradient", "whitening: gradient"),
    ("pooling", "gradient", "root of a covariance: gradient"),
    ("polar", "value", "orthogonalised gradient: value"),
)
"""Task, error and title of the panels of ``draw_conditions``."""
SPEED = (
    ("whitening", "8", "whitening of 2048 samples"),
    ("pooling", "16", "roots of 16 covariances"),
)
"""Task, timed case and title of the panels of ``draw_speed``."""


def draw_conditions(errors: pd.DataFrame, size: int = 64) -> Figure:
    """Draw the errors against the condition number, one panel per task, in the current theme.

    A line ends where the method raises or returns NaN.
    """
    figure, axes = plt.subplots(len(CONDITIONS), 1, figsize=(COLUMN, 9.6), sharex=True)
    for axis, (task, part, title) in zip(axes, CONDITIONS, strict=True):
        rows = errors[(errors["task"] == task) & (errors["size"] == size)]
        rows = rows.assign(kappa=pd.to_numeric(rows["case"], errors="coerce"))
        for name, own in rows.dropna(subset="kappa").groupby("method", sort=False):
            if name in LINES:
                _line(axis, str(name), own["kappa"], own[part])
        axis.set(title=title, ylabel="relative error", xscale="log", yscale="log", ylim=(3e-9, 30))
        _add_legend(axis, -0.24 if axis is axes[-1] else -0.08)
    axes[-1].set_xlabel("condition number")
    return figure


def _add_legend(axis: Axes, place: float) -> None:
    """Add a legend below a panel: beside it, the panel or the type would be too small."""
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, place), ncols=2, handlelength=2.5)


def _line(axis: Axes, name: str, x: pd.Series, y: pd.Series) -> None:
    color, line, marker = LINES[name]
    axis.plot(
        x, y, line, marker=marker, markersize=3, color=page_color(color), label=name, zorder=2
    )


def alt_conditions(errors: pd.DataFrame, size: int = 64) -> str:
    """Return a text that says what ``draw_conditions`` shows."""
    parts = []
    for task, part, title in CONDITIONS:
        column = of_case(errors, task, size, case="1e+08")[part].dropna()
        shown = column[[name for name in column.index if name in LINES]].sort_values()
        numbers = ", ".join(f"{name} {error:.0e}" for name, error in shown.items())
        parts.append(f"{title}, at a condition number of 1e8: {numbers}")
    return "Error against the condition number from 1 to 1e12. " + ". ".join(parts) + "."


def speed_data(rivals: Rivals) -> pd.DataFrame:
    """Return the points of ``draw_speed``: task, method, milliseconds and error."""
    tables = []
    for task, count, _ in SPEED:
        wrong = of_case(rivals.errors, task, 64, case="1e+04")["gradient"]
        seconds = of_case(rivals.times, task, 64, count=count)["seconds"]
        table = pd.DataFrame({"milliseconds": 1e3 * seconds, "error": wrong}).dropna()
        table = table.loc[[name for name in wrong.index if name in LINES and name in table.index]]
        tables.append(table.rename_axis("method").reset_index().assign(task=task))
    return pd.concat(tables, ignore_index=True)


def draw_speed(rivals: Rivals) -> Figure:
    """Draw the error of the gradient against the time, at d = 64 and a condition number of 1e4."""
    figure, axes = plt.subplots(2, 1, figsize=(COLUMN, 6.4))
    points = speed_data(rivals)
    for axis, (task, _, title) in zip(axes, SPEED, strict=True):
        for point in points[points["task"] == task].itertuples():
            name = str(point.method)
            color, _, marker = LINES[name]
            ink = page_color(color)
            filled = name.endswith(WIDE) or name.startswith(OURS)
            style = {"marker": marker, "linestyle": "none", "color": ink, "label": name}
            face = ink if filled else "none"
            axis.plot(point.milliseconds, point.error, markerfacecolor=face, **style)
        axis.set(title=title, ylabel="error of the gradient", xscale="log", yscale="log")
        _add_legend(axis, -0.26 if axis is axes[-1] else -0.14)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
    axes[-1].set_xlabel("milliseconds, forward and backward")
    return figure


def alt_speed(rivals: Rivals) -> str:
    """Return a text that says what ``draw_speed`` shows."""
    numbers = [
        f"{point.task}, {point.method}: {point.milliseconds:.1f} ms, error {point.error:.0e}"
        for point in speed_data(rivals).itertuples()
    ]
    return "Error of the gradient against the time. " + "; ".join(numbers) + "."
