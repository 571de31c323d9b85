from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from orthocond.report.figures.panel_grid import panel_grid, rows_of


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_last_panel_of_each_column_has_the_labels_of_its_axis(count: int) -> None:
    figure = Figure()
    panels = panel_grid(figure, count)
    assert len(panels) == len(figure.axes) == count and rows_of(count) == (count + 1) // 2
    labelled = [bool(axes.xaxis.get_tick_params()["labelbottom"]) for axes in panels]
    assert labelled == [place >= count - 2 for place in range(count)]
