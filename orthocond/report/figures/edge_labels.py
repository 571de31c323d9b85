"""Labels of lines beside the right edge of a panel, in place of a legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from orthocond.report.style import SMALL

POINTS = 72  # per inch
GAP = 1.15 * SMALL  # points from one label to the next
FAR = 12  # points from the edge to a label: the length of its leader


@dataclass(frozen=True)
class EdgeLabel:
    """A label and the value on the y axis that it names.

    Args:
        value: where the line ends.
        text: the label.
        color: colour of the leader from the edge to the label.
        arrow: the leader is an arrow, because no line ends at the value.
    """

    value: float
    text: str
    color: str
    arrow: bool = False


def spread(places: Iterable[float], gap: float, low: float, high: float) -> np.ndarray:
    """Move places apart to a distance of at least a gap, as little as possible.

    Args:
        places: positions in any order.
        gap: the least distance.
        low: the least position afterwards.
        high: the largest position afterwards, as far as the gaps leave room.

    Returns:
        The new positions in the order of ``places``: the least-squares solution, then moved into
        the range.

    Example:
        >>> spread([0.5, 0.5, 0.1], 0.2, 0, 1).round(2).tolist()
        [0.4, 0.6, 0.1]
    """
    wanted = np.asarray(list(places), dtype=float)
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    apart = isotonic_regression(wanted[order] - steps).x if len(order) else wanted
    moved = np.empty_like(wanted)
    moved[order] = np.clip(apart, low, max(low, high - gap * (len(order) - 1))) + steps
    return moved


def label_edge(axes: Axes, labels: Iterable[EdgeLabel]) -> None:
    """Draw labels to the right of a panel, each at its value, moved apart where they would touch.

    The panel must have its limits and its place in the figure.
    """
    labels = list(labels)
    height = axes.bbox.height * POINTS / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    data = [axes.transData.transform((0, own.value))[1] for own in labels]
    ends = [(place - axes.bbox.y0) / axes.bbox.height for place in data]
    places = spread(ends, GAP / height, 0, 1)
    for own, end, place in zip(labels, np.clip(ends, 0, 1), places, strict=True):
        axes.annotate(
            own.text, (1, end), (FAR, (place - end) * height), xycoords="axes fraction",
            textcoords="offset points", fontsize=SMALL, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-|>" if own.arrow else "-", "color": own.color, "lw": 1.3,
                        "mutation_scale": 7, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def add_labels(figure: Figure, labels: Mapping[Axes, Iterable[EdgeLabel]]) -> None:
    """Label the lines of each panel beside its right edge, where the layout puts the panel."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    for axes, own in labels.items():
        label_edge(axes, own)
