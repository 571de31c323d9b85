"""The conditioning of a task over training: the parts that figures 1 to 5 share."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from orthocond.config.tasks import DBN, TASKS
from orthocond.report.figures.curves import curves, in_noise, late, stated, window
from orthocond.report.figures.edge_labels import FAR, add_labels
from orthocond.report.figures.panels import draw_seen, draw_support
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, SMALL, label, short_label

SEEN, SUPPORT = r"$\kappa$ as an SVD sees it", r"$\kappa$ on the support"


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


def structural_rank(frame: pd.DataFrame) -> str:
    """Return the largest rank that the layers allow, or its range over the methods."""
    ranks = frame["structural_rank"].dropna()
    if ranks.empty:
        return ""
    low, high = int(ranks.min()), int(ranks.max())
    return f"structural rank {low}" if low == high else f"structural rank {low} to {high}"


def draw_training(data: Numbers, methods: Iterable[str]) -> Figure:
    """Draw two panels in one column: kappa as the SVD sees it, and kappa on the support.

    Args:
        data: from ``training_data``, or with the same columns.
        methods: in drawing order.
    """
    frame, methods = data.frame, list(methods)
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(COLUMN, 4.2), height_ratios=(1, 1.3))
    top, bottom = np.asarray(axes)
    top.set_ylabel(SEEN)
    bottom.set_ylabel(SUPPORT)
    bottom.set_title(structural_rank(frame), loc="left", fontsize=SMALL)
    labels = {
        top: draw_seen(top, frame, methods, stated(frame)),
        bottom: draw_support(bottom, frame, methods),
    }
    bottom.annotate(
        "method (rank)", (1, 1.04), (FAR, 0), xycoords="axes fraction",
        textcoords="offset points", fontsize=SMALL,
    )  # fmt: skip
    add_labels(figure, labels)
    return figure


def finding(frame: pd.DataFrame) -> str:
    """Return what to see in the curves of a frame: the methods in the shaded zone, and the order.

    Args:
        frame: rows of one or both tasks from ``curves``.
    """
    texts = []
    for task in frame["task"].unique():
        own = frame[frame["task"] == task]
        ends = late(own, "kappa_support")
        lowest, highest = min(ends, key=lambda m: ends[m]), max(ends, key=lambda m: ends[m])
        noise, every = len(in_noise(own)), own["method"].nunique()
        text = f"{TASKS[task].label}: κ is rounding noise (shaded) for {noise} of {every} methods"
        if lowest != highest:
            text += (
                f"; κ on the support ends lowest with {short_label(lowest)} ({ends[lowest]:.0e}) "
                f"and highest with {short_label(highest)} ({ends[highest]:.0e})"
            )
        texts.append(f"{text[0].upper()}{text[1:]}.")
    if stated(frame):
        texts.append("Arrows: orders of magnitude that the paper states.")
    return " ".join(texts)


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
