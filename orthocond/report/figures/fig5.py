"""Figure 5: the conditioning of GCP in training and in the evaluations between epochs."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from orthocond.config.tasks import GCP
from orthocond.report.figures.curves import curves
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.figures.training_figure import describe, draw_training, smoothing
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study

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
    how = f"{smoothing(training).capitalize()}; dotted: evaluations, the median of their batches"
    return Numbers(frame, Provenance.of(selection, how=how))


def draw(data: Numbers) -> Figure:
    """Draw the curves, with a dotted line at each evaluation."""
    frame, figure = data.frame, draw_training(data, METHODS)
    for axes in figure.axes:
        for step in frame.loc[frame["phase"] == "eval", "step"].unique():
            axes.axvline(step, color=mpl.rcParams["text.color"], lw=0.5, ls=(0, (1, 3)), zorder=0)
    return figure


def spikes(frame: pd.DataFrame) -> dict[str, float]:
    """Return, for each method, kappa on the support in evaluation divided by that in training.

    Both are medians over the steps of ``frame``.
    """
    medians = frame.groupby(["method", "phase"])["kappa_support"].median().unstack()
    return {str(m): float(ratio) for m, ratio in (medians["eval"] / medians["train"]).items()}


def alt(data: Numbers) -> str:
    """Describe the curves, and how evaluation differs from training."""
    frame = data.frame
    ratios = spikes(frame).values()
    return (
        f"{describe(frame[frame['phase'] == 'train'])} In evaluation kappa on the support is "
        f"{min(ratios):.2g} to {max(ratios):.2g} times that of training."
    )


FIGURE = StudyFigure(
    "fig5",
    "Figure 5: the conditioning of GCP in the later part of training, with its evaluations.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
)
