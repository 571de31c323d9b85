"""Figure 1: the conditioning of both tasks without treatments, side by side."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.config.tasks import DBN, TASKS
from orthocond.report.commands import MissingRuns
from orthocond.report.figures.curves import curves, rank_text, stated
from orthocond.report.figures.edge_labels import EdgeLabel, add_labels
from orthocond.report.figures.panels import draw_seen, draw_support
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.figures.training_figure import (
    SEEN,
    SUPPORT,
    describe,
    finding,
    smoothing,
    structural_rank,
)
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, SMALL, label, line_style

SHORT = {"paper: SVD": "SVD", "paper: Newton-Schulz": "NS", "paper: BN": "BN"}
"""Labels of the paper's levels between two panels, where there is little room."""


def data(study: Study) -> Numbers:
    """Return the curves of both tasks, or of the only task that has runs.

    Raises:
        MissingRuns: neither task has runs.
    """
    selections, frames = [], []
    for task in TASKS.values():
        try:
            own = study.select(task.name, task.solvers)
            frames.append(curves(own))
        except MissingRuns:
            continue
        selections.append(own)
    if not selections:
        raise study.missing(DBN.name, DBN.solvers)
    frame = pd.concat(frames, ignore_index=True)
    return Numbers(frame, Provenance.of(*selections, how=smoothing(frame).capitalize()))


def _leave_empty(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not run here", ha="center", va="center", transform=axes.transAxes)


def _draw_task(column: np.ndarray, own: pd.DataFrame, solvers: tuple[str, ...]) -> list[EdgeLabel]:
    """Draw the two panels of a task, and return short labels of the paper's levels."""
    top, bottom = column
    labels = draw_seen(top, own, solvers, stated(own))
    draw_support(bottom, own, solvers)
    bottom.set_title(structural_rank(own), loc="left", fontsize=SMALL)
    return [replace(each, text=SHORT.get(each.text, each.text)) for each in labels if each.arrow]


def draw(data: Numbers) -> Figure:
    """Draw a column of two panels for each task; arrows have the paper's levels."""
    frame = data.frame
    figure, axes = plt.subplots(2, 2, sharex="col", figsize=(COLUMN, 3.8))
    labels = {}
    for column, task in zip(axes.T, TASKS.values(), strict=True):
        own = frame[frame["task"] == task.name]
        column[0].set_title(task.short_label)
        if own.empty:
            for row in column:
                _leave_empty(row)
            continue
        labels[column[0]] = _draw_task(column, own, task.solvers)
    for row, name in zip(axes[:, 0], (SEEN, SUPPORT), strict=True):
        row.set_ylabel(name)
    handles = _handles(frame)
    figure.legend(
        handles=handles, title="method (rank of its covariance)", loc="outside upper center",
        ncols=2, handlelength=2.5, borderpad=0, columnspacing=1.0, title_fontsize=SMALL,
    )  # fmt: skip
    add_labels(figure, labels)
    return figure


def _handles(frame: pd.DataFrame) -> list[Line2D]:
    """Return one legend entry per method, with its rank in each task."""
    handles = []
    for method in dict.fromkeys(solver for task in TASKS.values() for solver in task.solvers):
        own = frame[frame["method"] == method]
        ranks = [rank_text(part, method) for _, part in own.groupby("task")]  # dbn before gcp
        if ranks:
            name = "Newton-Schulz, NS" if method == "ns" else label(method)
            text = f"{name} ({', '.join(ranks)})"
            handles.append(Line2D([], [], label=text, **line_style(method)))
    return handles


FIGURE = StudyFigure(
    "fig1",
    "Figure 1: the conditioning of the SVD meta-layer in decorrelated BN (left) and GCP (right). "
    "Top: as an SVD sees it. Bottom: on the support of the covariance.",
    data=data,
    draw=draw,
    alt=lambda data: describe(data.frame),
    finding=lambda data: finding(data.frame),
)
