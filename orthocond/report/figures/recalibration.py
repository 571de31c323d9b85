"""Accuracy over training with moving averages and with re-estimated statistics."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.config.tasks import DBN
from orthocond.report.figures.panel_grid import panel_grid, rows_of
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style

METHODS = ("svd", "svd+nog", "svd+nog+ow+olr", "bn")
STATISTICS = {"eval_top1": "moving averages", "recalibrated_top1": "re-estimated statistics"}
"""Statistics that the layer was evaluated with, by column of a run's metrics."""

DASHES: dict[str, Any] = {"eval_top1": (0, (3, 1.5)), "recalibrated_top1": "-"}
HOW = (
    "Line: mean over seeds, band: range over seeds. Re-estimated: statistics from training images, "
    "with the same weights"
)


def data(study: Study) -> Numbers:
    """Return the accuracy in percent at each evaluation.

    Returns:
        Columns method, epoch, and those in ``STATISTICS``: means over the seeds, and with ``_low``
        and ``_high`` the range over the seeds.

    Raises:
        MissingRuns: none of the methods was run.
    """
    selection = study.select(DBN.name, METHODS)
    columns, parts = list(STATISTICS), []
    for method, runs in selection.runs.items():
        if not runs:  # all of them diverged
            continue
        metrics = pd.concat([run.metrics for run in runs]).dropna(subset=columns)
        epochs = metrics.groupby("epoch")[columns]
        part = epochs.mean().join(epochs.min().add_suffix("_low"))
        part = part.join(epochs.max().add_suffix("_high")).reset_index()
        part.insert(0, "method", method)
        parts.append(part)
    return Numbers(pd.concat(parts, ignore_index=True), Provenance.of(selection, how=HOW))


def _draw_method(axes: Axes, own: pd.DataFrame) -> None:
    method = str(own["method"].iloc[0])
    color = line_style(method)["color"]
    for column, dashes in DASHES.items():
        low, high = own[f"{column}_low"], own[f"{column}_high"]
        axes.fill_between(own["epoch"], low, high, color=color, alpha=0.2, lw=0)
        axes.plot(own["epoch"], own[column], color=color, linestyle=dashes)
    axes.set_title(label(method), loc="left", fontsize=8)


def draw(data: Numbers) -> Figure:
    """Draw one panel per method, with one line per kind of statistics."""
    frame = data.frame
    methods = list(frame["method"].unique())
    figure = plt.figure(figsize=(COLUMN, 0.8 + 1.4 * rows_of(len(methods))))
    panels = panel_grid(figure, len(methods))
    for axes, method in zip(panels, methods, strict=True):
        _draw_method(axes, frame[frame["method"] == method])
    panels[0].xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    ink = mpl.rcParams["text.color"]
    handles = [
        Line2D([], [], color=ink, linestyle=DASHES[column], label=name)
        for column, name in STATISTICS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, borderpad=0)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("top-1 accuracy (%)", fontsize=8)
    return figure


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how much accuracy re-estimated statistics gain over moving averages.

    Returns:
        One row per method: method, largest (gain, in points), epoch (of that gain), last (gain
        after the last epoch).
    """
    rows = []
    for method in frame["method"].unique():
        own = frame[frame["method"] == method]
        gap = (own["recalibrated_top1"] - own["eval_top1"]).to_numpy()
        worst = int(gap.argmax())
        epoch = own["epoch"].iloc[worst]
        rows.append({"method": method, "largest": gap[worst], "epoch": epoch, "last": gap[-1]})
    return pd.DataFrame(rows)


def alt(data: Numbers) -> str:
    """Describe the largest and the last gain of each method."""
    texts = [
        f"{label(row['method'])} {row['largest']:.1f} points after epoch {row['epoch']:.0f} and "
        f"{row['last']:.1f} at the end"
        for row in gaps(data.frame).to_dict("records")
    ]
    return f"What re-estimated statistics gain over moving averages, at most: {'; '.join(texts)}."


def _finding(data: Numbers) -> str:
    """Return for which method the moving averages cost most, and when."""
    found = gaps(data.frame)
    worst = found.sort_values("largest").iloc[-1]
    return (
        "The distance between the lines is the cost of stale moving averages: at most "
        f"{worst['largest']:.0f} points, with {label(worst['method'])} after epoch "
        f"{worst['epoch']:.0f}."
    )


FIGURE = StudyFigure(
    "stale",
    "Accuracy over training, with the moving averages (dashed) and with re-estimated statistics "
    "(solid).",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
    finding=_finding,
)
