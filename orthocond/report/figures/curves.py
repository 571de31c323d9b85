"""Conditioning over training: the curves of figures 1 to 5, as data and as panels.

Note [Two condition numbers]
    The paper plots max |l_i| / min |l_i|, where l_i are the eigenvalues of the covariance. Some
    covariances are singular by construction: a dense 3x3 convolution from 3 channels has at most
    27 independent outputs, and N positions span N - 1 dimensions. There the denominator is rounding
    noise. So each figure has a second row, l_max / l_rank on the support, and the legend has the
    rank. The dotted line in the first row is 1 / rank_tol: above this line a covariance is singular
    to the precision of its features.
"""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import BboxTransformTo, ScaledTranslation, blended_transform_factory

from orthocond.artifacts.run_writer import Run
from orthocond.report.paper import STATED_KAPPAS, StatedKappa
from orthocond.report.study import Selection
from orthocond.report.style import label, line_style

FIELDS = ("kappa", "kappa_support", "rank")
LEVELS = ("structural_rank", "rank_tol")  # one value per run, drawn as lines
RANGES = tuple(f"{field}_{end}" for end in ("low", "high") for field in FIELDS)
COLUMNS = (*FIELDS, *RANGES, *LEVELS, "n")
ROWS = {"kappa": r"$\kappa$ as an SVD sees it", "kappa_support": r"$\kappa$ on the support"}
WINDOWS = 25  # a curve is smoothed over 1 / WINDOWS of its records
LATE = 0.1  # the last part of training, which the alt text summarizes
MARK = (0.05, 0.27)  # inches from the right edge, where a magnitude from the paper is drawn
HUGE = np.finfo(float).max  # replaces inf in a rolling median, which would skip inf


def window(records: int) -> int:
    """Return the odd number of records in the window of a curve's running median.

    Example:
        >>> window(10), window(250)
        (1, 11)
    """
    return records // WINDOWS // 2 * 2 + 1


def _training_records(run: Run) -> pd.DataFrame:
    rows = run.conditioning
    rows = rows[rows["phase"] == "train"].sort_values("step", kind="stable")
    parts = rows[["step", *FIELDS, *LEVELS]].reset_index(drop=True)
    values = parts[list(FIELDS)].replace(np.inf, HUGE)
    medians = values.rolling(window(len(parts)), center=True, min_periods=1).median()
    parts[list(FIELDS)] = medians.mask(medians >= HUGE, np.inf)
    return parts


def _evaluation_records(run: Run) -> pd.DataFrame:
    """Return one row per evaluation: the medians over its batches."""
    rows = run.conditioning
    epochs = rows[rows["phase"] == "eval"].groupby("epoch")
    parts = epochs[[*FIELDS, *LEVELS]].median()
    parts.insert(0, "step", epochs["step"].min())
    return parts.reset_index(drop=True)


RECORDS = {"train": _training_records, "eval": _evaluation_records}


def curves(selection: Selection, phase: str = "train") -> pd.DataFrame:
    """Return the conditioning of each method over training.

    Args:
        selection: the runs.
        phase: ``train`` (smoothed) or ``eval`` (one row per evaluation).

    Returns:
        One row per method and step. kappa, kappa_support and rank are medians over the seeds, their
        columns with ``_low`` and ``_high`` the range over the seeds; ``n`` is the number of seeds.
    """
    tables = []
    for method, runs in selection.runs.items():
        records = pd.concat([RECORDS[phase](run) for run in runs] or [pd.DataFrame()])
        if records.empty:
            continue
        steps = records.groupby("step")
        table = steps[list(FIELDS)].median()
        table = table.join(steps[list(FIELDS)].min().add_suffix("_low"))
        table = table.join(steps[list(FIELDS)].max().add_suffix("_high"))
        table = table.join(steps[list(LEVELS)].median())
        table["n"] = steps.size()
        table.insert(0, "method", method)
        tables.append(table.reset_index())
    if not tables:
        return pd.DataFrame(columns=["task", "data", "step", "method", "label", *COLUMNS])
    frame = pd.concat(tables, ignore_index=True)
    frame.insert(0, "task", selection.task)
    frame.insert(1, "data", selection.title)
    frame.insert(4, "label", frame["method"].map(label))
    return frame


def late(frame: pd.DataFrame, field: str) -> dict[str, float]:
    """Return each method's median of a field over the last tenth of training."""
    start = (1 - LATE) * frame["step"].max()
    tail = frame[frame["step"] >= start]
    return {
        method: float(tail.loc[tail["method"] == method, field].median())
        for method in frame["method"].unique()
    }


def rank_text(frame: pd.DataFrame, method: str) -> str:
    """Return a method's rank, or the range of its ranks over training, for the legend.

    Example:
        >>> import pandas as pd
        >>> rank_text(pd.DataFrame({"method": ["bn", "bn"], "rank": [27.0, 27.0]}), "bn")
        '27'
    """
    ranks = frame.loc[frame["method"] == method, "rank"]
    low, high = round(ranks.quantile(0.05)), round(ranks.quantile(0.95))
    return str(low) if low == high else f"{low} to {high}"


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return the powers of ten that enclose the finite, positive values."""
    drawn = values[np.isfinite(values) & (values > 0)]
    low, high = (drawn.min(), drawn.max()) if len(drawn) else (1.0, 10.0)
    return 10 ** np.floor(np.log10(low) - 0.1), 10 ** np.ceil(np.log10(high) + 0.1)


def _marked(own: pd.DataFrame) -> int | list[int]:
    """Return which points of a line get a marker: its evaluations, or about six if it has none.

    The result has the meaning of ``markevery`` in matplotlib.
    """
    if "phase" in own:
        return list(np.flatnonzero(own["phase"] == "eval"))
    return max(1, len(own) // 6)


def draw_panel(
    axes: Axes,
    frame: pd.DataFrame,
    field: str,
    methods: Iterable[str],
    marks: Iterable[StatedKappa] = (),
) -> None:
    """Draw one field of some methods on a log axis, with the range over the seeds as a band.

    Args:
        axes: the panel.
        frame: from ``curves``.
        field: kappa or kappa_support; an infinite one is drawn at the top of the axis.
        methods: in drawing order.
        marks: magnitudes from the paper's text, drawn beside the right edge.
    """
    columns = [field, f"{field}_low", f"{field}_high"]
    marks = list(marks)
    bottom, top = _limits(np.append(frame[columns].to_numpy(), [mark.value for mark in marks]))
    for method in methods:
        own = frame[frame["method"] == method]
        if own.empty:
            continue
        middle, least, most = (own[column].clip(upper=top) for column in columns)
        style = line_style(method)
        axes.plot(own["step"], middle, markevery=_marked(own), **style)
        if own["n"].max() > 1:
            axes.fill_between(own["step"], least, most, color=style["color"], alpha=0.15, lw=0)
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.margins(x=0.02)
    for mark in marks:
        _draw_mark(axes, mark)


def _draw_mark(axes: Axes, mark: StatedKappa) -> None:
    """Draw a short piece of the method's line to the right of the axes."""
    assert axes.figure is not None
    right_edge = ScaledTranslation(1, 0, BboxTransformTo(axes.bbox))
    place = blended_transform_factory(axes.figure.dpi_scale_trans + right_edge, axes.transData)
    ends = [mark.value, mark.value]
    style = line_style(mark.method)
    axes.plot(MARK, ends, markevery=[1], clip_on=False, transform=place, **style)


def stated(frame: pd.DataFrame) -> list[StatedKappa]:
    """Return the magnitudes that the paper's text states for the methods of a frame."""
    shown = set(zip(frame["task"], frame["method"], strict=True))
    return [kappa for kappa in STATED_KAPPAS if (kappa.task, kappa.method) in shown]


def draw_rows(column: np.ndarray, frame: pd.DataFrame, methods: Iterable[str]) -> None:
    """Draw the two panels of a task: kappa, and below it kappa on the support.

    Args:
        column: the two panels, of shape (2,).
        frame: from ``curves``.
        methods: in the order of the legend.
    """
    methods, marks = list(methods), {"kappa": stated(frame)}
    for axes, field in zip(column, ROWS, strict=True):
        draw_panel(axes, frame, field, methods, marks.get(field, ()))
    top, bottom = column
    bottom.set_xlabel("training step")
    structural = frame["structural_rank"].dropna()
    if len(structural):
        low, high = int(structural.min()), int(structural.max())
        text = f"{low}" if low == high else f"{low} to {high}"
        bottom.set_title(f"structural rank {text}", loc="right", fontsize=6.5)
    ink = mpl.rcParams["text.color"]
    limit = 1 / frame["rank_tol"].median()
    low, high = top.get_ylim()
    if low < limit < high:
        top.axhline(limit, color=ink, lw=0.6, ls=(0, (1, 2)))
        text = "numerically singular"
        top.text(1, limit, text, transform=top.get_yaxis_transform(), ha="right", va="bottom",
                 fontsize=5.5)  # fmt: skip
