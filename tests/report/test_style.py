from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb

from orthocond.config.tasks import TASKS
from orthocond.report.figures import fig5, treatment_figures
from orthocond.report.style import STYLES, label, line_style, theme


def luminance(color: str) -> float:
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("method", STYLES)
def test_every_line_has_contrast_with_its_page(method: str, dark: bool) -> None:
    with theme(dark):
        assert contrast(line_style(method)["color"], mpl.rcParams["figure.facecolor"]) >= 3


@pytest.mark.parametrize(
    "methods",
    [
        *(task.solvers for task in TASKS.values()),
        *(figure.methods for figure in (*treatment_figures.FIGURES, fig5.FIGURE)),
    ],
)
def test_lines_of_one_figure_differ_in_dashes_or_markers(methods: tuple[str, ...]) -> None:
    styles = {method: STYLES[method] for method in methods}
    for a, b in combinations(styles.values(), 2):
        assert (a.dashes, a.marker) != (b.dashes, b.marker)


def test_a_method_without_a_style_of_its_own_can_be_drawn() -> None:
    assert line_style("svd+new")["marker"]
    assert label("svd+new") == "SVD + NEW"


def test_the_theme_is_reset_after_its_block() -> None:
    before = mpl.rcParams["text.color"]
    with theme(dark=True):
        assert mpl.rcParams["text.color"] != before
    assert mpl.rcParams["text.color"] == before
