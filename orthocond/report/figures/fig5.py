"""Figure 5: the conditioning of GCP in training and in the evaluations between epochs."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orthocond.config.tasks import GCP
from orthocond.report.figures.curves import curves, rank_text, stated
from orthocond.report.figures.edge_labels import add_labels
from orthocond.report.figures.panel_grid import panel_grid, rows_of
from orthocond.report.figures.panels import draw_seen
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
from orthocond.report.style import COLUMN, SMALL, line_style, short_label

METHODS = (
    "svd",
    "svd+ow",
    "svd+nog",
    "svd+olr",
    "svd+nog+ow",
    "svd+nog+ow+olr",
    "ns",
    "gap",
)
LATER = 0.5  # the part of the steps after which the curves are shown


def data(study: Study) -> Numbers:
    """Return the later half of the training curves, and a row for each evaluation.

    The column ``phase`` is ``train`` or ``eval``.

    Raises:
        MissingRuns: none of the methods was run.
    """
    selection = study.select(GCP.name, METHODS)
    training, evaluation = curves(selection), curves(selection, "eval")
    training["phase"], evaluation["phase"] = "train", "eval"
    frame = pd.concat([training, evaluation], ignore_index=True)
    frame = frame[frame["step"] >= LATER * frame["step"].max()]
    # An evaluation has the number of the training step that follows it: "eval" < "train".
    frame = frame.sort_values(["step", "phase"], kind="stable")
    frame = frame.sort_values(
        "method", key=lambda names: names.map(METHODS.index), kind="stable", ignore_index=True
    )
    how = f"{smoothing(training).capitalize()}; evaluations: the median of their batches"
    return Numbers(frame, Provenance.of(selection, how=how))


def _draw_method(axes: Axes, frame: pd.DataFrame, method: str) -> None:
    """Draw one method's kappa on the support in its colour, and all others in the background."""
    ink = mpl.rcParams["text.color"]
    training = frame[frame["phase"] == "train"]
    for _, other in training[training["method"] != method].groupby("method"):
        axes.plot(other["step"], other["kappa_support"], color=ink, alpha=0.2, lw=0.6)
    own, color = training[training["method"] == method], line_style(method)["color"]
    low, high = own["kappa_support_low"], own["kappa_support_high"]
    axes.fill_between(own["step"], low, high, color=color, alpha=0.25, lw=0)
    axes.plot(own["step"], own["kappa_support"], color=color)
    points = frame[(frame["phase"] == "eval") & (frame["method"] == method)]
    axes.plot(points["step"], points["kappa_support"], "o", color=color, ms=3, mfc="none")
    name = f"{short_label(method)} ({rank_text(own, method)})"
    axes.set_title(name, loc="left", fontsize=SMALL, pad=2)
    axes.set_yscale("log")


def draw(data: Numbers) -> Figure:
    """Draw kappa as an SVD sees it for all methods, and kappa on the support in one panel each."""
    frame = data.frame
    methods = [method for method in METHODS if method in set(frame["method"])]
    rows = rows_of(len(methods))
    figure = plt.figure(figsize=(COLUMN, 2.2 + 0.95 * rows))
    parts = figure.add_gridspec(2, 1, height_ratios=(1.7, 0.5 + 0.95 * rows))
    upper, lower = (figure.add_subfigure(parts[place]) for place in (0, 1))
    top = upper.subplots()
    top.set(ylabel=SEEN, xlabel="training step")
    labels = draw_seen(top, frame, methods, stated(frame))
    panels = panel_grid(lower, len(methods))
    for axes, method in zip(panels, methods, strict=True):
        _draw_method(axes, frame, method)
    _tick_tightly(panels[0])
    lower.supylabel(SUPPORT, fontsize=8)
    lower.supxlabel("training step", fontsize=8)
    top.set_title(structural_rank(frame), loc="left", fontsize=SMALL)
    add_labels(figure, {top: labels})
    return figure


def _tick_tightly(axes: Axes) -> None:
    """Label 1, 2 and 5 in each decade, because the methods may be less than a decade apart."""
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(_power))
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def _power(value: float, _: int) -> str:
    digit, exponent = f"{value:.0e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if digit == "1" else rf"${digit}\times{power}$"


def spikes(frame: pd.DataFrame) -> dict[str, float]:
    """Return, for each method, kappa on the support in evaluation divided by that in training.

    Both are medians over the steps of ``frame``.
    """
    medians = frame.groupby(["method", "phase"])["kappa_support"].median().unstack()
    return {str(m): float(ratio) for m, ratio in (medians["eval"] / medians["train"]).items()}


def _evaluations(frame: pd.DataFrame) -> str:
    """Return how evaluation differs from training."""
    ratios = spikes(frame).values()
    return (
        f"In evaluation (circles) kappa on the support is {min(ratios):.2g} to {max(ratios):.2g} "
        "times that of training."
    )


def alt(data: Numbers) -> str:
    """Describe the curves, and how evaluation differs from training."""
    frame = data.frame
    return f"{describe(frame[frame['phase'] == 'train'])} {_evaluations(frame)}"


FIGURE = StudyFigure(
    "fig5",
    "Figure 5: the conditioning of GCP in the later half of training; below, each method in its "
    "own panel in front of the others.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
    finding=lambda numbers: (
        f"{finding(numbers.frame[numbers.frame['phase'] == 'train'])} {_evaluations(numbers.frame)}"
    ),
)
