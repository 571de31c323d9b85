"""Training curves of every method of a study, a panel per quantity and kind of methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from orthocond.config.methods import PLAIN
from orthocond.config.tasks import TASKS
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, label, line_style
from orthocond.report.training_records import (
    QUANTITIES,
    Curves,
    Quantity,
    curves_of,
    records,
    selections,
    spread,
)
from orthocond.treatments.registry import TREATMENTS

SHOWN = (
    *("train_loss", "eval_loss", "train_top1", "eval_top1", "recalibrated_top1"),
    *("lr", "eta", "eta_used", "sv_max", "sv_min"),
)
"""Columns of the quantities that are drawn, one row of panels each."""

ROWS = tuple(quantity for quantity in QUANTITIES if quantity.column in SHOWN)
SOLVERS, WEIGHTS, GRADIENTS, STEPS, COMBINED, COMBINED_STEPS = KINDS = (
    *("Solvers, networks", "Weight", "Gradient", "Step size", "Combined"),
    "Combined, step size",
)
"""Kinds of methods, one column of panels each."""

KIND_OF = {"weight": WEIGHTS, "loss": WEIGHTS, "gradient": GRADIENTS, "step": STEPS}
STEM_DASHES = (0, (2, 1))  # of the controls with a wide stem
HOW = "Line: median over the seeds, band: their range; one value per epoch"


def kind(curves: Curves) -> str:
    """Return the kind of a method: where its treatments act, or that it has several."""
    names = curves.method.split("+")[1:]
    acts = [TREATMENTS[name].acts_on for name in names if name in TREATMENTS]
    if curves.control or not acts:
        return SOLVERS
    if len(acts) == 1:
        return KIND_OF[acts[0]]
    return COMBINED_STEPS if "step" in acts else COMBINED


def data(study: Study, task: str | None = None) -> Numbers:
    """Return median and range over the seeds of every quantity, method and epoch.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``, of which the largest study is shown; None takes the main task.

    Returns:
        Columns task, study, kind, method, name, control, quantity (a column of ``metrics.csv``),
        step, median, low, high, n (seeds). A quantity that was not recorded has no rows.

    Raises:
        MissingRuns: there are no complete runs.
    """
    task = task or study.main_task
    parts = selections(study, task)
    tables = []
    for curves in curves_of(parts):
        recorded = [records(run, ROWS) for run in curves.runs]
        for quantity in ROWS:
            table = spread(values[quantity.column] for values in recorded)
            about = {
                "task": task,
                "study": parts[0].study,
                "kind": kind(curves),
                "method": curves.method,
                "name": curves.name,
                "control": curves.control,
                "quantity": quantity.column,
            }
            tables.append(pd.DataFrame({**about, **table}, index=table.index))
    frame = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return Numbers(frame, Provenance.of(*parts, how=HOW))


def _style(method: str, control: bool) -> dict[str, Any]:
    return line_style(method) | ({"linestyle": STEM_DASHES} if control else {})


def _shown(frame: pd.DataFrame, kind: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the curves in a column of panels, by name: those of a kind, after plain SVD."""
    plain = (frame["method"] == PLAIN) & ~frame["control"]
    groups = frame[plain | (frame["kind"] == kind)].groupby("name", sort=False)
    return [(str(name), own) for name, own in groups]


def _draw_panel(axes: Axes, frame: pd.DataFrame, kind: str) -> None:
    """Draw one quantity of the methods of a kind, or say that it was not recorded."""
    for _, own in _shown(frame, kind):
        style = _style(own["method"].iloc[0], own["control"].iloc[0])
        axes.plot(own["step"], own["median"], markevery=0.3, **style)
        bounds = own["low"], own["high"]
        axes.fill_between(own["step"], *bounds, color=style["color"], alpha=0.15, lw=0)
    if not axes.has_data():
        axes.text(
            0.5, 0.5, "not recorded", fontsize=7, ha="center", va="center", transform=axes.transAxes
        )


def _draw_legend(axes: Axes, frame: pd.DataFrame, kind: str) -> None:
    """Name the methods of a column of panels, in place of a panel."""
    handles = [
        Line2D(
            [], [], label=name.removeprefix("SVD + "), **_style(*own[["method", "control"]].iloc[0])
        )
        for name, own in _shown(frame, kind)
    ]
    axes.axis("off")
    axes.legend(
        handles=handles, title=kind, loc="upper left", bbox_to_anchor=(0, 1), borderpad=0,
        handlelength=2.6, handletextpad=0.5, labelspacing=0.2, fontsize=7, title_fontsize=7.5,
        alignment="left",
    )  # fmt: skip


def _finish(row: Iterable[Axes], quantity: Quantity, last: bool) -> None:
    """Name the quantity of a row of panels, and leave ticks at the edges of the figure alone."""
    first, *others = row = list(row)
    first.set_title(quantity.name, loc="left", fontsize=7.5)
    if quantity.log:
        first.set_yscale("log")
        first.yaxis.set_minor_locator(NullLocator())
    if not any(panel.lines for panel in row):
        first.set_yticks([])
    for panel in others:
        panel.tick_params(left=False)
    for panel in row:
        panel.tick_params(bottom=last)
        panel.patch.set_visible(False)  # invisible, and in the file


def draw(numbers: Numbers) -> Figure:
    """Draw a row of panels per quantity, and a column per kind of methods."""
    frame = numbers.frame
    kinds = [kind for kind in KINDS if kind in set(frame["kind"])]
    figure, axes = plt.subplots(
        1 + len(ROWS), len(kinds), sharex="col", sharey="row", squeeze=False,
        figsize=(max(COLUMN, 0.4 + 1.25 * len(kinds)), 1.2 + 0.95 * len(ROWS)),
    )  # fmt: skip
    for panel, kind in zip(axes[0], kinds, strict=True):
        _draw_legend(panel, frame, kind)
    for row, quantity in zip(axes[1:], ROWS, strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            _draw_panel(panel, frame[frame["quantity"] == quantity.column], kind)
        _finish(row, quantity, last=quantity is ROWS[-1])
    figure.supxlabel("training step", fontsize=8)
    return figure


def _ends_text(ends: pd.Series) -> str:
    """Describe the last values of a quantity: plain SVD, the lowest and the highest method."""
    if ends.nunique() == 1:
        return f"{ends.iloc[0]:.3g} for every method that has it"
    named = {f"lowest {ends.idxmin()}": ends.min(), f"highest {ends.idxmax()}": ends.max()}
    if label(PLAIN) in ends:
        named = {label(PLAIN): ends[label(PLAIN)], **named}
    return ", ".join(f"{name} {value:.3g}" for name, value in named.items())


def alt(numbers: Numbers) -> str:
    """Describe where the methods end."""
    frame = numbers.frame
    task, study = TASKS[frame["task"].iloc[0]], frame["study"].iloc[0]
    ends = frame.groupby(["quantity", "name"], sort=False)["median"].last()
    texts = [
        f"{q.name}: {_ends_text(ends[q.column]) if q.column in ends else 'not recorded'}"
        for q in ROWS
    ]
    count = frame["name"].nunique()
    return (
        f"Training curves of {count} methods of {task.label} in {study}. "
        f"At the end of training, {'; '.join(texts)}."
    )


def figure_of(task: str | None = None) -> StudyFigure:
    """Return the figure of a task's largest study; None stands for the main task of the runs."""
    which = "a study" if task is None else f"the largest study of {TASKS[task].label}"
    return StudyFigure(
        "curves" if task is None else f"curves-{task}",
        f"The training curves of every method of {which}: a row per quantity, a column per kind "
        "of methods, and plain SVD in each column.",
        data=lambda study: data(study, task),
        draw=draw,
        alt=alt,
    )


FIGURE = figure_of()
