"""Small multiples: panels of equal axes in two columns."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

COLUMNS = 2


def rows_of(count: int) -> int:
    """Return the number of rows of a grid of panels.

    Example:
        >>> rows_of(5)
        3
    """
    return -(-count // COLUMNS)


def panel_grid(place: FigureBase, count: int) -> list[Axes]:
    """Return panels that share both axes, row by row.

    Args:
        place: a figure or a part of one.
        count: number of panels; the last row may have one panel.
    """
    axes = place.subplots(rows_of(count), COLUMNS, sharex=True, sharey=True, squeeze=False)
    panels = list(axes.flat)
    for empty in panels[count:]:
        empty.remove()
    for last in panels[max(0, count - COLUMNS) : count]:
        last.tick_params(labelbottom=True)
    return panels[:count]
