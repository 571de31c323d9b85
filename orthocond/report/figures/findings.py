"""What every study found: the effect of each treatment on the error, one panel per study."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.findings import HOW, effects, row_name, sources
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style

METHODS = (
    "svd+sn", "svd+ol", "svd+ow", "svd+nog", "svd+olr", "svd+nog+ow+olr", "svd+slow",
)  # fmt: skip
SEEDS = 3  # from which an interval determines the range of the axis
REMARK = (
    "Slow is a control: plain SVD with a tenth of the learning rate for the treated layer. "
    "Intervals of two seeds may go beyond their panel"
)


def data(study: Study) -> Numbers:
    """Return the rows of ``findings.effects`` for the treatments of the paper and a control.

    Raises:
        MissingRuns: no study has one of the treatments and plain SVD at one seed.
    """
    found = effects(study, METHODS)
    return Numbers(found, Provenance(HOW, (REMARK,), runs=sources(study, found)))


def _limit(frame: pd.DataFrame) -> float:
    """Return the end of the axis, beyond all means and the intervals of enough seeds."""
    wide = frame[frame["n"] >= SEEDS]
    ends = pd.concat([frame["mean"], wide["low"], wide["high"]]).abs()
    return 1.1 * float(ends.max())


def _panel(axes: Axes, own: pd.DataFrame) -> None:
    axes.axvline(0, color=mpl.rcParams["text.color"], lw=0.7)
    for place, method in enumerate(METHODS):
        row = own[own["method"] == method]
        if row.empty:
            axes.text(0, place, " not run", fontsize=6, va="center", alpha=0.7)
            continue
        mean, low, high = (float(row[key].iloc[0]) for key in ("mean", "low", "high"))
        style = line_style(method)
        axes.plot([low, high], [place, place], color=style["color"], lw=1.5)
        axes.plot([mean], [place], "o", color=style["color"], ms=4)


def draw(numbers: Numbers) -> Figure:
    """Draw a panel per study, with a row per treatment."""
    frame = numbers.frame
    studies = list(dict.fromkeys(zip(frame["task"], frame["study"], strict=True)))
    rows = -(-len(studies) // 2)
    figure, axes = plt.subplots(
        rows, 2, sharex=True, sharey=True, squeeze=False, figsize=(1.6 * COLUMN, 0.4 + 1.5 * rows)
    )
    limit = _limit(frame)
    for panel, (task, name) in zip(axes.flat, studies, strict=False):
        own = frame[(frame["task"] == task) & (frame["study"] == name)]
        _panel(panel, own)
        gap = own["gap"].iloc[0]
        panel.set_title(f"{row_name(task, name)}\ngap {gap:.1f} points", loc="left", fontsize=7)
        panel.set_xlim(-limit, limit)
        panel.set_yticks(range(len(METHODS)), [label(m).removeprefix("SVD + ") for m in METHODS])
        panel.set_ylim(len(METHODS) - 0.5, -0.5)
    for panel in axes.flat[len(studies) :]:
        panel.remove()
    figure.supxlabel("points of error against plain SVD (left: better)", fontsize=8)
    return figure


def alt(numbers: Numbers) -> str:
    """Describe each study's effects."""
    texts = []
    for (task, name), own in numbers.frame.groupby(["task", "study"], sort=False):
        said = ", ".join(
            f"{label(method)} {mean:+.1f}"
            for method, mean in zip(own["method"], own["mean"], strict=True)
        )
        texts.append(f"{row_name(str(task), str(name))}: {said}")
    return f"Points of error more than plain SVD (below 0: better). {'; '.join(texts)}."


FIGURE = StudyFigure(
    "findings",
    "The effect of each treatment on the error in every study. A treatment helps where its whole "
    "interval is left of the line.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
)
