"""The conditioning of decorrelated BN over training: what figures 2, 3 and 4 have in common."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.report.curves import (
    ROWS,
    curves,
    draw_rows,
    late,
    rank_text,
    stated,
    window,
)
from orthocond.report.provenance import attach
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, TASKS, label, line_style

NOTE_WIDTH = 82  # characters of a note in one column


def smoothing(frame: pd.DataFrame) -> str:
    """How the curves of a frame were smoothed, for its note."""
    records = window(int(frame.groupby("method").size().max())) if len(frame) else 1
    median = f"running median of {records} records" if records > 1 else "no smoothing"
    return f"{median}; line: median, band: range over seeds"


def training_data(study: Study, methods: Iterable[str], task: str = "dbn") -> pd.DataFrame:
    """The curves of some methods, with their note."""
    selection = study.select(task, methods)
    frame = curves(selection)
    return attach(frame, selection, remark=smoothing(frame).capitalize())


def handle(method: str, rank: str) -> Line2D:
    """A method's entry in the legend."""
    return Line2D([], [], label=f"{label(method)} ({rank})", **line_style(method))


def add_legend(figure: Figure, handles: list[Line2D]) -> None:
    """The legend above a figure, in two columns."""
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
    """What the pieces of line at the right edge are, for the note of curves that have them."""
    text = "Pieces of line at the right edge: orders of magnitude that the paper states"
    return [text] if stated(frame) else []


def add_note(figure: Figure, frame: pd.DataFrame, more: Iterable[str] = ()) -> None:
    """The note and remarks under a figure, and what else its readers must know."""
    text = ". ".join([frame.attrs["note"], *more, *frame.attrs["remarks"]])
    figure.supxlabel(fill(text, NOTE_WIDTH), fontsize=5.5, ha="left", x=0.01)


def draw_training(frame: pd.DataFrame, methods: Iterable[str]) -> Figure:
    """Two panels in one column: kappa as the paper sees it, and on the support."""
    methods = list(methods)
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(COLUMN, 4.6))
    draw_rows(np.asarray(axes), frame, methods)
    for row, name in zip(axes, ROWS.values(), strict=True):
        row.set_ylabel(name)
    shown = [m for m in methods if m in set(frame["method"])]
    add_legend(figure, [handle(m, rank_text(frame, m)) for m in shown])
    add_note(figure, frame, edge_marks(frame))
    return figure


def describe(frame: pd.DataFrame) -> str:
    """What the curves show, in words: the text that stands in for the image."""
    parts = []
    for task in frame["task"].unique():
        own = frame[frame["task"] == task]
        text = f"Condition number of the covariance in {TASKS[task]} on {own['data'].iloc[0]}."
        for field, name in (("kappa", "As an SVD sees it"), ("kappa_support", "On the support")):
            ends = late(own, field)
            numbers = ", ".join(f"{label(m)} {value:.1e}" for m, value in ends.items())
            lowest = label(min(ends, key=lambda m: ends[m]))
            text += f" {name}, in the last tenth of training: {numbers}; lowest is {lowest}."
        parts.append(text)
    return " ".join(parts)
