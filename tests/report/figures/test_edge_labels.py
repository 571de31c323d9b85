from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from orthocond.report.figures.edge_labels import EdgeLabel, add_labels, spread
from orthocond.report.style import theme


@pytest.mark.parametrize("seed", range(5))
def test_places_keep_their_order_their_gap_and_their_range(seed: int) -> None:
    places = np.random.default_rng(seed).uniform(-0.2, 1.2, 8)
    moved = spread(places, 0.1, 0, 1)
    assert (np.argsort(moved) == np.argsort(places)).all()
    assert np.diff(np.sort(moved)).min() >= 0.1 - 1e-12
    assert moved.min() >= 0 and moved.max() <= 1 + 1e-12


def test_places_that_do_not_touch_stay_and_others_move_as_little_as_possible() -> None:
    assert spread([0.9, 0.1, 0.5], 0.2, 0, 1).tolist() == [0.9, 0.1, 0.5]
    assert spread([0.5, 0.5], 0.2, 0, 1) == pytest.approx([0.4, 0.6])
    assert spread([], 0.2, 0, 1).size == 0
    too_many = spread([0.5] * 4, 0.5, 0, 1)  # no room: the gap counts
    assert too_many == pytest.approx([0, 0.5, 1, 1.5])


def test_labels_are_beside_the_panel_inside_the_figure_and_apart() -> None:
    with theme():
        figure = Figure(figsize=(3.5, 2))
        axes = figure.subplots()
        axes.set_yscale("log")
        axes.set_ylim(1, 1e6)
        values = [1.0, 1e3, 1.1e3, 1.2e3, 1e9]
        labels = [EdgeLabel(value, f"{value:.1e}", "red", value > 1e3) for value in values]
        add_labels(figure, {axes: labels})
        figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without leaders
    assert all(axes.bbox.x1 < box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert [text.get_text() for text in axes.texts] == [own.text for own in labels]
