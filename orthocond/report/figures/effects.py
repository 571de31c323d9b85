"""The effect of each treatment on the error, against training steps and training images.

Studies of one data set that differ in steps or in images are shown side by side. Does an effect
grow, shrink or change its sign?
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthocond.artifacts.run_reader import Run
from orthocond.config.methods import PLAIN
from orthocond.config.sources import read_preset
from orthocond.config.tasks import DBN
from orthocond.report.commands import MissingRuns
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.findings import effect_text
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.regimes import train_images
from orthocond.report.statistics import difference
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style
from orthocond.report.tables.comparison import is_data_set

METHODS = ("svd+nog", "svd+nog+ow+olr", "svd+slow")
"""Treatments that every study of CIFAR-10 has, or will have."""

STUDIES = {
    "cifar-cpu": "cifar10-cpu",
    "cifar10-few": "cifar10-few",
    "cifar10-long": "cifar10-long",
}
"""Presets of the studies on CIFAR-10 that the figure compares, and the folder of each study."""

DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4)))
MARKERS = ("o", "s", "^", "D")
APART = 0.03  # of the axis: distance between studies of equally many images
HOW = (
    "Error, recalibrated, minus that of plain SVD at equal seeds, in points: below 0 the treatment "
    "is better. Left: mean over seeds at each evaluation. Right: at the end, with 95% t intervals"
)


def _errors(runs: Iterable[Run]) -> pd.DataFrame:
    """Return the recalibrated error at each evaluation: one row per step, one column per seed."""
    columns = {}
    for run in runs:
        rows = run.metrics.dropna(subset=["recalibrated_top1"]).set_index("step")
        columns[run.config["seed"]] = 100 - rows["recalibrated_top1"]
    return pd.DataFrame(columns)


def _effects(selection: Selection) -> list[dict[str, object]]:
    base = _errors(selection.runs.get(PLAIN, ()))
    rows = []
    for method in METHODS:
        own = _errors(selection.runs.get(method, ()))
        seeds = own.columns.intersection(base.columns)
        for step in own.index.intersection(base.index) if len(seeds) else ():
            found = difference(own.loc[step, seeds], base.loc[step, seeds])
            rows.append(
                {
                    "study": selection.study,
                    "data": selection.data,
                    "images": train_images(selection.all_runs[0]) or np.nan,
                    "method": method,
                    "step": step,
                    **{key: getattr(found, key) for key in ("mean", "low", "high", "n")},
                }
            )
    return rows


def _absent(study: Study, data: str, selections: list[Selection]) -> tuple[list[str], list[str]]:
    """Return a remark and a command for each study on CIFAR-10 that was not run."""
    if not is_data_set(data, "CIFAR10"):
        return [], []
    there = {(s.settings["data"]["train_images"], s.settings["epochs"]) for s in selections}
    remarks, commands = [], []
    copy = [] if data == "cifar10" else ["--data", f"folder:PATH/{data}"]
    for name, folder in STUDIES.items():
        preset = read_preset(name)
        images, epochs = preset["data"]["train_images"], preset["epochs"]
        if (images, epochs) not in there:
            remarks.append(f"Not run here: preset {name}, {images:,} images, {epochs} epochs")
            arguments = ["--preset", name, *copy, "--out", str(study.folder / folder)]
            commands.append(shlex.join(["orthocond", "train", *arguments]))
    return remarks, commands


def data(study: Study) -> Numbers:
    """Return the effect of each treatment in each study of the largest data set.

    Returns:
        One row per study, method and evaluation. Columns study, data, images (NaN: all), method,
        step, mean, low, high (difference in error to plain SVD, 95% t interval), n (seeds).

    Raises:
        MissingRuns: no study has one of the treatments and plain SVD at one seed.
    """
    name = study.data or next(iter(study.data_sets(DBN.name)), None)
    selections = []
    for own in study.names(DBN.name):
        try:
            selections.append(study.select(DBN.name, (PLAIN, *METHODS), name, own))
        except MissingRuns:
            continue
    selections.sort(key=lambda s: (train_images(s.all_runs[0]) or np.inf, s.study))
    found = [(selection, _effects(selection)) for selection in selections]
    selections = [selection for selection, rows in found if rows]
    frame = pd.DataFrame([row for _, rows in found for row in rows])
    if frame.empty:
        raise study.missing(DBN.name, (PLAIN, *METHODS), beside=study.largest(DBN.name))
    remarks, commands = _absent(study, str(name), selections)
    source = Provenance.of(*selections, how=HOW, more=remarks)
    commands = [*source.commands, *commands]
    return Numbers(frame, replace(source, commands=tuple(commands)))


def _draw_method(steps: Axes, images: Axes, own: pd.DataFrame, studies: list[str]) -> None:
    """Draw a treatment's effect over training on the left, and at the end on the right."""
    for place, study in enumerate(studies):
        rows = own[own["study"] == study]
        if rows.empty:
            continue
        style = line_style(str(rows["method"].iloc[0]))
        style |= {"linestyle": DASHES[place % 4], "marker": MARKERS[place % 4]}
        steps.plot(rows["step"], rows["mean"], **style)
        end = rows.iloc[-1]
        spread = np.abs([[end["mean"] - end["low"]], [end["high"] - end["mean"]]])
        # Studies of equally many images are moved apart.
        where = np.nan_to_num(end["images"]) + APART * place * own["images"].max()
        alone = bool(np.isnan(spread).any())  # a single seed has no interval
        images.errorbar(
            [where], [end["mean"]], None if alone else spread, color=style["color"],
            marker=style["marker"], mfc="none" if alone else None, ls="", ms=4, capsize=2, lw=1,
        )  # fmt: skip


def draw(data: Numbers) -> Figure:
    """Draw one row of panels per treatment: against steps, and against training images."""
    frame = data.frame
    methods = [m for m in METHODS if m in set(frame["method"])]
    studies = list(frame["study"].unique())
    figure, axes = plt.subplots(
        len(methods), 2, sharex="col", sharey="row", squeeze=False,
        figsize=(COLUMN, 1 + 1.2 * len(methods)),
    )  # fmt: skip
    ink = mpl.rcParams["text.color"]
    for (steps, images), method in zip(axes, methods, strict=True):
        _draw_method(steps, images, frame[frame["method"] == method], studies)
        for panel in (steps, images):
            panel.axhline(0, color=ink, lw=0.5)
        steps.set_title(label(method), loc="left")
    figure.supylabel("points of error against plain SVD", fontsize=8)
    axes[-1, 0].set_xlabel("training step")
    axes[-1, 0].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1, 1].set_xlabel("training images")
    axes[-1, 1].xaxis.set_major_locator(mpl.ticker.MaxNLocator(2))
    axes[-1, 1].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1, 1].margins(x=0.2)
    handles = [
        Line2D([], [], color=ink, linestyle=DASHES[place % 4], marker=MARKERS[place % 4],
               markersize=4, markerfacecolor="none", label=study)
        for place, study in enumerate(studies)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=2, borderpad=0)
    return figure


def alt(data: Numbers) -> str:
    """Describe each treatment's effect at the end of each study."""
    ends = data.frame.groupby(["method", "study"], sort=False).last().reset_index()
    texts = []
    for method in dict.fromkeys(ends["method"]):
        own = ends[ends["method"] == method]
        said = ", ".join(
            f"{effect_text(row.mean, row.low, row.high)} in {row.study} (step {row.step:,.0f})"
            for row in own[["mean", "low", "high", "study", "step"]].itertuples()
        )
        texts.append(f"{label(method)}: {said}")
    return (
        "Points of error more than plain SVD at the end of training, with 95% intervals: "
        f"{'; '.join(texts)}."
    )


def _finding(data: Numbers) -> str:
    """Return for each treatment in how many studies it ends below plain SVD."""
    ends = data.frame.groupby(["method", "study"], sort=False).last().reset_index()
    counts = [
        f"{label(str(method))} in {(own['mean'] < 0).sum()} of {len(own)} studies"
        for method, own in ends.groupby("method", sort=False)
    ]
    below = "; ".join(counts)
    return f"Below the line is better. The mean at the end is below it for {below}."


FIGURE = StudyFigure(
    "effects",
    "The effect of treatments on the error, against training steps (left) and, at the end of "
    "training, against training images (right). Bars: 95% intervals; open markers on the right: "
    "single seeds. Studies of equally many images are moved apart.",
    data=data,
    draw=draw,
    alt=alt,
    methods=METHODS,
    finding=_finding,
)
