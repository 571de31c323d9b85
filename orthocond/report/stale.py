"""Accuracy over training, with the moving averages and with re-estimated statistics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from orthocond.report.provenance import attach
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style
from orthocond.report.training_figure import add_note

METHODS = ("svd", "svd+nog", "svd+nog+ow+olr", "bn")
KINDS = {"eval_top1": "moving averages", "recalibrated_top1": "re-estimated"}
REMARK = "Mean over seeds. Recalibrated: statistics from training images, the weights as they are"


def data(study: Study) -> pd.DataFrame:
    """Accuracy in percent after each epoch.

    Returns:
        Columns method, epoch and those of ``KINDS``: means over the seeds.

    Raises:
        MissingRuns: no run of any of the methods.
    """
    selection = study.select("dbn", METHODS)
    parts = []
    for method, runs in selection.runs.items():
        metrics = pd.concat([run.metrics for run in runs])
        means = metrics.groupby("epoch")[list(KINDS)].mean().reset_index()
        means.insert(0, "method", method)
        parts.append(means)
    return attach(pd.concat(parts, ignore_index=True), selection, remark=REMARK)


def draw(study: Study) -> Figure:
    """A panel a method, with a line a kind of statistics; in the current theme."""
    frame = data(study)
    methods = list(frame["method"].unique())
    size = (COLUMN, 1.5 * len(methods))
    figure, axes = plt.subplots(
        len(methods), 1, sharex=True, sharey=True, squeeze=False, figsize=size
    )
    for axis, method in zip(axes.flat, methods, strict=True):
        own, style = frame[frame["method"] == method], line_style(method) | {"marker": ""}
        for (column, name), dashes in zip(KINDS.items(), ("--", "-"), strict=True):
            axis.plot(own["epoch"], own[column], **style | {"linestyle": dashes}, label=name)
        axis.set(title=label(method), ylabel="top-1 (%)")
        axis.legend(loc="lower right")
    axes[-1, 0].set_xlabel("epoch")
    add_note(figure, frame)
    return figure


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Method, the largest gap between the two accuracies, its epoch, and the gap at the end."""
    rows = []
    for method in frame["method"].unique():
        own = frame[frame["method"] == method]
        gap = (own["recalibrated_top1"] - own["eval_top1"]).to_numpy()
        worst = int(gap.argmax())
        epoch = own["epoch"].iloc[worst]
        rows.append({"method": method, "largest": gap[worst], "epoch": epoch, "last": gap[-1]})
    return pd.DataFrame(rows)


def alt(study: Study) -> str:
    """What the figure shows, in words."""
    texts = [
        f"{label(row['method'])} {row['largest']:.1f} points after epoch {row['epoch']:.0f} and "
        f"{row['last']:.1f} at the end"
        for row in gaps(data(study)).to_dict("records")
    ]
    return f"What re-estimated statistics gain over moving averages, at most: {'; '.join(texts)}."
