"""Figure 1: the conditioning of both tasks without treatments, side by side."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.config.tasks import DBN, TASKS
from orthocond.report.figures.curves import ROWS, curves, draw_rows, rank_text
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.figures.training_figure import (
    add_legend,
    add_note,
    describe,
    edge_marks,
    handle,
    smoothing,
)
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import COLUMN


def data(study: Study) -> Numbers:
    """Return the curves of both tasks, or of the only task that has runs.

    Raises:
        MissingRuns: neither task has runs.
    """
    selections = []
    for task in TASKS.values():
        try:
            selections.append(study.select(task.name, task.solvers))
        except MissingRuns:
            continue
    if not selections:
        raise study.missing(DBN.name, DBN.solvers)
    frame = pd.concat([curves(s) for s in selections], ignore_index=True)
    return Numbers(frame, Provenance.of(*selections, how=smoothing(frame).capitalize()))


def _leave_empty(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not run here", ha="center", va="center", transform=axes.transAxes)


def draw(data: Numbers) -> Figure:
    """Draw a column of two panels for each task."""
    frame = data.frame
    figure, axes = plt.subplots(2, 2, sharex="col", figsize=(COLUMN, 4.2))
    for column, task in zip(axes.T, TASKS.values(), strict=True):
        own = frame[frame["task"] == task.name]
        column[0].set_title(task.short_label)
        if own.empty:
            for row in column:
                _leave_empty(row)
            continue
        draw_rows(column, own, task.solvers)
    for row, name in zip(axes[:, 0], ROWS.values(), strict=True):
        row.set_ylabel(name)
    add_legend(figure, _handles(frame))
    add_note(figure, data.provenance, edge_marks(frame))
    return figure


def _handles(frame: pd.DataFrame) -> list[Line2D]:
    """Return one legend entry per method, with its rank in each task."""
    handles = []
    for method in dict.fromkeys(solver for task in TASKS.values() for solver in task.solvers):
        own = frame[frame["method"] == method]
        ranks = [rank_text(part, method) for _, part in own.groupby("task")]  # dbn before gcp
        if ranks:
            handles.append(handle(method, ", ".join(ranks)))
    return handles


FIGURE = StudyFigure(
    "fig1",
    "Figure 1: the conditioning of the SVD meta-layer in decorrelated BN (left) and GCP (right).",
    data=data,
    draw=draw,
    alt=lambda data: describe(data.frame),
)
