"""The conditioning of a task over training: the parts that figures 1 to 5 share."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.config.tasks import DBN, TASKS
from orthocond.report.figures.curves import (
    ROWS,
    curves,
    draw_rows,
    late,
    rank_text,
    stated,
    window,
)
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style

NOTE_WIDTH = 82  # characters of a note in one column


def smoothing(frame: pd.DataFrame) -> str:
    """Return how the curves of a frame were smoothed, for its note."""
    records = window(int(frame.groupby("method").size().max())) if len(frame) else 1
    median = f"running median of {records} records" if records > 1 else "no smoothing"
    return f"{median}; line: median, band: range over seeds"


def training_data(study: Study, methods: Iterable[str]) -> Numbers:
    """Return the curves of some methods of decorrelated BN, one row a method and probed step.

    Raises:
        MissingRuns: none of the methods was run.
    """
    selection = study.select(DBN.name, methods)
    frame = curves(selection)
    return Numbers(frame, Provenance.of(selection, how=smoothing(frame).capitalize()))


def handle(method: str, rank: str) -> Line2D:
    """Return the legend's entry for a method and the rank of its covariance."""
    return Line2D([], [], label=f"{label(method)} ({rank})", **line_style(method))


def add_legend(figure: Figure, handles: list[Line2D]) -> None:
    """Add a legend in two columns above the panels of a figure."""
    figure.legend(
        handles=handles,
        title="method (rank of its covariance)",
        loc="outside upper center",
        ncols=2,
        handlelength=3.0,
        handletextpad=0.5,
        borderpad=0,
        columnspacing=1.0,
        fontsize=6,
        title_fontsize=6,
    )


def edge_marks(frame: pd.DataFrame) -> list[str]:
    """Return a sentence on the marks at the right edge, for curves that have such marks."""
    text = "Pieces of line at the right edge: orders of magnitude that the paper states"
    return [text] if stated(frame) else []


def add_note(figure: Figure, provenance: Provenance, more: Iterable[str] = ()) -> None:
    """Add the note, further sentences, and the remarks below a figure."""
    text = ". ".join([provenance.note, *more, *provenance.remarks])
    figure.supxlabel(fill(text, NOTE_WIDTH), fontsize=5.5, ha="left", x=0.01)


def draw_training(data: Numbers, methods: Iterable[str]) -> Figure:
    """Draw two panels in one column: kappa as the SVD sees it, and kappa on the support.

    Args:
        data: from ``training_data``, or with the same columns.
        methods: in the order of the legend.
    """
    frame, methods = data.frame, list(methods)
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(COLUMN, 4.6))
    draw_rows(np.asarray(axes), frame, methods)
    for row, name in zip(axes, ROWS.values(), strict=True):
        row.set_ylabel(name)
    shown = [m for m in methods if m in set(frame["method"])]
    add_legend(figure, [handle(m, rank_text(frame, m)) for m in shown])
    add_note(figure, data.provenance, edge_marks(frame))
    return figure


def describe(frame: pd.DataFrame) -> str:
    """Return a text that replaces the image: each method's kappa at the end of training."""
    parts = []
    for task in frame["task"].unique():
        own = frame[frame["task"] == task]
        where = f"{TASKS[task].label} on {own['data'].iloc[0]}"
        text = f"Condition number of the covariance in {where}."
        for field, name in (("kappa", "As an SVD sees it"), ("kappa_support", "On the support")):
            ends = late(own, field)
            numbers = ", ".join(f"{label(m)} {value:.1e}" for m, value in ends.items())
            lowest = label(min(ends, key=lambda m: ends[m]))
            text += f" {name}, in the last tenth of training: {numbers}; lowest is {lowest}."
        parts.append(text)
    return " ".join(parts)
