"""Figure 5: the conditioning of GCP in the later part of training, with its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from orthocond.report.curves import curves
from orthocond.report.provenance import attach
from orthocond.report.study import Study
from orthocond.report.training_figure import describe, draw_training, smoothing

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
LATER = 0.5  # of the steps: from here on


def data(study: Study) -> pd.DataFrame:
    """The curves of training with a row for each evaluation between them."""
    selection = study.select("gcp", METHODS)
    training, evaluation = curves(selection), curves(selection, "eval")
    training["phase"], evaluation["phase"] = "train", "eval"
    frame = pd.concat([training, evaluation], ignore_index=True)
    frame = frame[frame["step"] >= LATER * frame["step"].max()]
    # An evaluation has the step that training goes on with, and comes before it: eval < train.
    frame = frame.sort_values(["step", "phase"], kind="stable")
    frame = frame.sort_values("method", key=by_place(METHODS), kind="stable", ignore_index=True)
    remark = f"{smoothing(training).capitalize()}; dotted: evaluations, the median of their batches"
    return attach(frame, selection, remark=remark)


def by_place(order: Sequence[str]) -> Callable[[pd.Series], pd.Series]:
    """A sorting key: where a name stands in an order."""
    return lambda names: names.map({name: place for place, name in enumerate(order)})


def draw(study: Study) -> Figure:
    """The figure, in the current theme."""
    frame = data(study)
    figure = draw_training(frame, METHODS)
    for axes in figure.axes:
        for step in frame.loc[frame["phase"] == "eval", "step"].unique():
            axes.axvline(step, color=mpl.rcParams["text.color"], lw=0.5, ls=(0, (1, 3)), zorder=0)
    return figure


def spikes(frame: pd.DataFrame) -> dict[str, float]:
    """Method -> how many times larger kappa on the support is in evaluation than in training."""
    medians = frame.groupby(["method", "phase"])["kappa_support"].median().unstack()
    return {str(m): float(ratio) for m, ratio in (medians["eval"] / medians["train"]).items()}


def alt(study: Study) -> str:
    """What the figure shows, in words."""
    frame = data(study)
    ratios = spikes(frame).values()
    return (
        f"{describe(frame[frame['phase'] == 'train'])} In evaluation kappa on the support is "
        f"{min(ratios):.2g} to {max(ratios):.2g} times that of training."
    )
