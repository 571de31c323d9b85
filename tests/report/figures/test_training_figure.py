"""The parts that figures 1 to 5 share."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from orthocond.config.tasks import DBN
from orthocond.report.figures import fig5, treatment_figures
from orthocond.report.figures.training_figure import add_legend, handle
from orthocond.report.style import COLUMN, theme


@pytest.mark.parametrize(
    "methods",
    [DBN.solvers, *(figure.methods for figure in (*treatment_figures.FIGURES, fig5.FIGURE))],
    ids=["fig1", "fig2", "fig3", "fig4", "fig5"],
)
def test_the_legend_fits_into_a_column_whatever_the_ranks(methods: tuple[str, ...]) -> None:
    with theme():
        figure = plt.figure(figsize=(COLUMN, 4.6))
        figure.subplots(2, 1)
        add_legend(figure, [handle(method, "27 to 64") for method in methods])
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert figure.bbox.x0 <= legend.get_window_extent().x0
        assert legend.get_window_extent().x1 <= figure.bbox.x1
        plt.close(figure)
