"""Panels of figures 1 to 5: a condition number of several methods over training."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from orthocond.report.figures.curves import in_noise, noise_level, rank_text
from orthocond.report.figures.edge_labels import EdgeLabel
from orthocond.report.paper import StatedKappa
from orthocond.report.style import SMALL, line_style, page_color, short_label

NOISE = "rounding noise"


def log_axis(axes: Axes, values: Iterable[float]) -> None:
    """Set a log axis whose limits are the powers of ten around the finite, positive values."""
    numbers = np.asarray(list(values), dtype=float)
    drawn = numbers[np.isfinite(numbers) & (numbers > 0)]
    low, high = (drawn.min(), drawn.max()) if len(drawn) else (1.0, 10.0)
    axes.set_yscale("log")
    axes.set_ylim(10 ** np.floor(np.log10(low) - 0.1), 10 ** np.ceil(np.log10(high) + 0.1))
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.margins(x=0)


def draw_line(axes: Axes, own: pd.DataFrame, field: str) -> None:
    """Draw one method's field, with the range over the seeds as a band.

    Args:
        axes: the panel, with its limits; an infinite value is drawn at its top.
        own: rows of one method from ``curves``.
        field: kappa or kappa_support.
    """
    top = axes.get_ylim()[1]
    middle, low, high = (own[f"{field}{end}"].clip(upper=top) for end in ("", "_low", "_high"))
    style = line_style(str(own["method"].iloc[0]))
    axes.plot(own["step"], middle, markevery=(len(own) // 12, max(1, len(own) // 6)), **style)
    if own["n"].max() > 1:
        axes.fill_between(own["step"], low, high, color=style["color"], alpha=0.15, lw=0)


def draw_support(axes: Axes, frame: pd.DataFrame, methods: Iterable[str]) -> list[EdgeLabel]:
    """Draw kappa on the support, and return the labels of the lines with their ranks.

    Args:
        axes: the panel.
        frame: from ``curves``.
        methods: in drawing order.
    """
    log_axis(axes, frame["kappa_support"])
    labels = []
    for method in methods:
        own = frame[frame["method"] == method]
        if own.empty:
            continue
        draw_line(axes, own, "kappa_support")
        text = f"{short_label(method)} ({rank_text(frame, method)})"
        labels.append(_end(axes, own, "kappa_support", text))
    axes.set_xlabel("training step")
    return labels


def draw_seen(
    axes: Axes, frame: pd.DataFrame, methods: Iterable[str], marks: Iterable[StatedKappa]
) -> list[EdgeLabel]:
    """Draw kappa as an SVD sees it, and return the labels of the lines and of the paper's levels.

    Several methods whose kappa is rounding noise are one band: their differences have no meaning.

    Args:
        axes: the panel.
        frame: from ``curves``.
        methods: in drawing order.
        marks: magnitudes that the paper's text states.
    """
    marks, noise = list(marks), in_noise(frame)
    labels, alone = [], len(noise) == 1
    log_axis(axes, [*frame["kappa"], *(mark.value for mark in marks)])
    _shade_noise(axes, frame)
    if noise and not alone:
        labels.append(_draw_band(axes, frame[frame["method"].isin(noise)], noise))
    for method in methods:
        own = frame[frame["method"] == method]
        if len(own) and (alone or method not in noise):
            draw_line(axes, own, "kappa")
            labels.append(_end(axes, own, "kappa", short_label(method)))
    for mark in marks:
        color = str(line_style(mark.method)["color"])
        labels.append(EdgeLabel(mark.value, f"paper: {short_label(mark.method)}", color, True))
    return labels


def _end(axes: Axes, own: pd.DataFrame, field: str, text: str) -> EdgeLabel:
    """Return the label of a line at its last value."""
    value = min(float(own[field].iloc[-1]), axes.get_ylim()[1])
    return EdgeLabel(value, text, str(line_style(str(own["method"].iloc[0]))["color"]))


def _shade_noise(axes: Axes, frame: pd.DataFrame) -> None:
    """Shade the zone in which a covariance is singular to the precision of its features."""
    low, high = axes.get_ylim()
    start = max(low, noise_level(frame))
    if start >= high:
        return
    axes.axhspan(start, high, color=mpl.rcParams["text.color"], alpha=0.1, lw=0, zorder=0)
    place = axes.get_yaxis_transform()
    axes.text(0.02, start, NOISE, va="bottom", transform=place, fontsize=SMALL, style="italic")


def _draw_band(axes: Axes, noise: pd.DataFrame, methods: list[str]) -> EdgeLabel:
    """Draw the range over several methods and their seeds as a band, and return its label."""
    steps, top = noise.groupby("step"), axes.get_ylim()[1]
    low, high = steps["kappa_low"].min().clip(upper=top), steps["kappa_high"].max().clip(upper=top)
    color = page_color(None)
    axes.fill_between(low.index, low, high, color=color, alpha=0.35, lw=0.8)
    names = ", ".join(short_label(method) for method in methods)
    text = names if len(methods) < 3 else f"{len(methods)} methods"
    middle = min(float(noise[noise["step"] == low.index[-1]]["kappa"].median()), top)
    return EdgeLabel(middle, text, color)
