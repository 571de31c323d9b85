"""Figures without runs whose lines are labelled at their ends, in place of a legend."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from orthocond.report.demonstrations import backward_rules, proposition, singular_values
from orthocond.report.style import theme

SPECTRA = pd.DataFrame(
    [
        {"step": step, "index": index, "before": 10.0 ** -(index * step), "after": 1.0}
        for step in (1, 2, 3)
        for index in (0, 1)
    ]
)
ERRORS = pd.DataFrame(
    [
        {"power": power, "rule": rule, "gap": gap, "error": 1e-16 / gap}
        for power in ("sqrt", "inv_sqrt")
        for rule in backward_rules.LINES
        for gap in (1.0, 1e-6)
    ]
)
PAIRS = pd.DataFrame(
    {"pair": ["rotations", "rotations", "random"], "t": [-64.0, 64, 0], "eta": [-0.3, 0.3, 0]}
)


@pytest.mark.parametrize(
    ("draw", "frame", "labels"),
    [
        (proposition.draw, PAIRS, {"paper: at most 1", r"at most $1/\sqrt{8}$"}),
        (backward_rules.draw, ERRORS, set(backward_rules.LINES)),
        (singular_values.draw, SPECTRA, {"gradient, step 1", "gradient, step 3", "after NOG"}),
    ],
    ids=["proposition", "backward rules", "singular values"],
)
def test_every_line_has_a_label_and_there_is_no_legend(draw, frame, labels: set[str]) -> None:
    with theme():
        figure: Figure = draw(frame)
        figure.draw_without_rendering()
    assert not figure.legends
    for axes in figure.axes:
        assert labels <= {text.get_text() for text in axes.texts}
        assert all(text.get_window_extent().x1 <= figure.bbox.x1 + 1 for text in axes.texts)
