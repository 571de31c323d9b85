"""Accuracy over training with moving averages and with re-estimated statistics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from orthocond.config.tasks import DBN
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.figures.training_figure import add_note
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style

METHODS = ("svd", "svd+nog", "svd+nog+ow+olr", "bn")
STATISTICS = {"eval_top1": "moving averages", "recalibrated_top1": "re-estimated"}
"""Statistics that the layer was evaluated with, by column of a run's metrics."""

HOW = "Mean over seeds. Recalibrated: statistics from training images, the weights as they are"


def data(study: Study) -> Numbers:
    """Return the accuracy in percent after each epoch.

    Returns:
        Columns method, epoch, and those in ``STATISTICS`` (means over the seeds).

    Raises:
        MissingRuns: none of the methods was run.
    """
    selection = study.select(DBN.name, METHODS)
    parts = []
    for method, runs in selection.runs.items():
        metrics = pd.concat([run.metrics for run in runs])
        means = metrics.groupby("epoch")[list(STATISTICS)].mean().reset_index()
        means.insert(0, "method", method)
        parts.append(means)
    return Numbers(pd.concat(parts, ignore_index=True), Provenance.of(selection, how=HOW))


def draw(data: Numbers) -> Figure:
    """Draw one panel per method, with one line per kind of statistics."""
    frame = data.frame
    methods = list(frame["method"].unique())
    size = (COLUMN, 1.5 * len(methods))
    figure, axes = plt.subplots(
        len(methods), 1, sharex=True, sharey=True, squeeze=False, figsize=size
    )
    for axis, method in zip(axes.flat, methods, strict=True):
        own, style = frame[frame["method"] == method], line_style(method) | {"marker": ""}
        for (column, name), dashes in zip(STATISTICS.items(), ("--", "-"), strict=True):
            axis.plot(own["epoch"], own[column], **style | {"linestyle": dashes}, label=name)
        axis.set(title=label(method), ylabel="top-1 (%)")
        axis.legend(loc="lower right")
    axes[-1, 0].set_xlabel("epoch")
    add_note(figure, data.provenance)
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


FIGURE = StudyFigure(
    "stale",
    "Accuracy over training, with the moving averages and with re-estimated statistics.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
)
