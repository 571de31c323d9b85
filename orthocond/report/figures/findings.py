"""What every study found: the effect of each treatment on the error, one panel per study."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orthocond.report.figures.panel_grid import panel_grid, rows_of
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.findings import effect_text, effects, how, row_name, sources
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, SMALL, label, line_style, short_label

METHODS = (
    "svd+sn", "svd+ol", "svd+ow", "svd+nog", "svd+olr", "svd+nog+ow+olr", "svd+slow",
)  # fmt: skip
TITLE = 18  # characters above a panel, also where they are wide ones
SEEDS = 3  # from which an interval determines the range of the axis
SLOW = "Slow is a control: plain SVD with a tenth of the learning rate for the treated layer"
FEW = {
    1: "Open circles are single seeds, which have no interval",
    2: "Intervals of two seeds may go beyond their panel",
}
"""Remark on effects of few seeds, by their number."""


def data(study: Study) -> Numbers:
    """Return the rows of ``findings.effects`` for the treatments of the paper and a control.

    Raises:
        MissingRuns: no study has one of the treatments and plain SVD at one seed.
    """
    found = effects(study, METHODS)
    remarks = (SLOW, *(remark for n, remark in FEW.items() if (found["n"] == n).any()))
    return Numbers(found, Provenance(how(found), remarks, runs=sources(study, found)))


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
            axes.text(0, place, " not run", fontsize=SMALL, va="center", alpha=0.7)
            continue
        mean, low, high = (float(row[key].iloc[0]) for key in ("mean", "low", "high"))
        style = line_style(method)
        axes.plot([low, high], [place, place], color=style["color"], lw=1.5)
        fill = "none" if row["n"].iloc[0] == 1 else style["color"]
        axes.plot([mean], [place], "o", color=style["color"], mfc=fill, ms=4)


def draw(numbers: Numbers) -> Figure:
    """Draw a panel per study, with a row per treatment."""
    frame = numbers.frame
    studies = list(dict.fromkeys(zip(frame["task"], frame["study"], strict=True)))
    figure = plt.figure(figsize=(COLUMN, 0.3 + 1.5 * rows_of(len(studies))))
    panels, limit = panel_grid(figure, len(studies)), _limit(frame)
    for panel, (task, name) in zip(panels, studies, strict=True):
        own = frame[(frame["task"] == task) & (frame["study"] == name)]
        _panel(panel, own)
        gap = own["gap"].iloc[0]
        title = f"{textwrap.fill(row_name(task, name), TITLE)}\ngap {gap:.1f} points"
        panel.set_title(title, loc="left", fontsize=SMALL)
        panel.set_xlim(-limit, limit)
        panel.set_yticks(range(len(METHODS)), [short_label(m) for m in METHODS])
        panel.set_ylim(len(METHODS) - 0.5, -0.5)
    figure.supxlabel("points of error against plain SVD (left: better)", fontsize=8)
    return figure


def alt(numbers: Numbers) -> str:
    """Describe each study's effects."""
    texts = []
    for (task, name), own in numbers.frame.groupby(["task", "study"], sort=False):
        said = ", ".join(
            f"{label(method)} {effect_text(mean, low, high)}"
            for method, mean, low, high in zip(
                own["method"], own["mean"], own["low"], own["high"], strict=True
            )
        )
        texts.append(f"{row_name(str(task), str(name))}: {said}")
    return (
        "Points of error more than plain SVD (below 0: better) and 95% intervals. "
        f"{'; '.join(texts)}."
    )


def _finding(numbers: Numbers) -> str:
    """Return for each treatment how many of its intervals lie on one side of zero."""
    frame, texts = numbers.frame.dropna(subset="low"), []
    for method in METHODS:
        own = frame[frame["method"] == method]
        counts = {"left": (own["high"] < 0).sum(), "right": (own["low"] > 0).sum()}
        said = " and ".join(f"{count} {side}" for side, count in counts.items() if count)
        if said:
            texts.append(f"{short_label(method)} {said}, of {len(own)}")
    return f"Intervals wholly left or right of the line: {'; '.join(texts)}." if texts else ""


FIGURE = StudyFigure(
    "findings",
    "The effect of each treatment on the error in every study, with 95% intervals that are not "
    "adjusted for several comparisons. Left of the line is better.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
    finding=_finding,
)
