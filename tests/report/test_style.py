from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from orthocond.config.tasks import TASKS
from orthocond.report.figures import effects, fig5, findings, recalibration, treatment_figures
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


SETS = [
    *(task.solvers for task in TASKS.values()),
    *(figure.methods for figure in (*treatment_figures.FIGURES, fig5.FIGURE)),
    findings.METHODS,
    effects.METHODS,
    recalibration.METHODS,
]


@pytest.mark.parametrize("methods", SETS)
def test_lines_of_one_figure_differ_in_dashes_or_markers(methods: tuple[str, ...]) -> None:
    styles = {method: STYLES[method] for method in methods}
    for a, b in combinations(styles.values(), 2):
        assert (a.dashes, a.marker) != (b.dashes, b.marker)


VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Matrices on linear RGB by which Machado, Oliveira and Fernandes (2009) simulate vision."""

XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour (D65), as people of this vision see it."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    seen = XYZ @ np.clip(np.asarray(VISION[vision]) @ parts, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("methods", SETS)
def test_colours_of_one_figure_differ_for_every_kind_of_vision(
    methods: tuple[str, ...], vision: str, dark: bool
) -> None:
    """A distance of 2.3 is just noticeable; dashes, markers and labels tell lines apart too."""
    with theme(dark):
        colors = [lab(line_style(method)["color"], vision) for method in methods]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colors, 2)) > 3 * 2.3


def test_a_method_without_a_style_of_its_own_can_be_drawn() -> None:
    assert line_style("svd+new")["marker"]
    assert label("svd+new") == "SVD + NEW"


def test_the_theme_is_reset_after_its_block() -> None:
    before = mpl.rcParams["text.color"]
    with theme(dark=True):
        assert mpl.rcParams["text.color"] != before
    assert mpl.rcParams["text.color"] == before
