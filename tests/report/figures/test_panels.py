from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from orthocond.report.figures.curves import stated
from orthocond.report.figures.panels import NOISE, draw_seen, draw_support
from orthocond.report.style import line_style

STEPS = np.arange(0, 100, 10.0)


def curve(method: str, kappa: float, rank: float = 27) -> pd.DataFrame:
    """The curve of a method whose condition number is constant, in two seeds a factor 4 apart."""
    values = {"kappa": kappa, "kappa_support": kappa / 10, "rank": rank}
    ends = {f"{k}_low": v / 2 for k, v in values.items()} | {
        f"{k}_high": v * 2 for k, v in values.items()
    }
    rest = {"task": "dbn", "method": method, "rank_tol": 1e-13, "structural_rank": 27, "n": 2}
    return pd.DataFrame({"step": STEPS, **values, **ends, **rest})


@pytest.fixture
def frame() -> pd.DataFrame:
    kappas = {"svd": 1e16, "svd+nog": 3e16, "bn": 2e17, "svd+ow": 1e10}
    return pd.concat([curve(method, kappa) for method, kappa in kappas.items()])


def test_methods_in_the_noise_are_one_band_over_all_of_them_and_the_rest_are_lines(
    frame: pd.DataFrame,
) -> None:
    axes = Figure().subplots()
    labels = draw_seen(axes, frame, ["svd", "svd+nog", "bn", "svd+ow"], [])
    (line,) = axes.lines
    assert set(line.get_ydata()) == {1e10}
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    heights = bands[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (5e15, 4e17)
    assert [(own.text, own.arrow) for own in labels] == [("3 methods", False), ("OW", False)]
    assert NOISE in {text.get_text() for text in axes.texts}


def test_two_methods_in_the_noise_are_named_one_is_a_line_and_none_leave_the_zone_undrawn(
    frame: pd.DataFrame,
) -> None:
    two = frame[frame["method"].isin(["svd", "bn", "svd+ow"])]
    labels = draw_seen(Figure().subplots(), two, ["svd", "bn", "svd+ow"], [])
    assert labels[0].text == "SVD, BN"
    axes = Figure().subplots()
    draw_seen(axes, frame[frame["method"] == "bn"], ["bn"], [])
    assert [set(line.get_ydata()) for line in axes.lines] == [{2e17}]
    axes = Figure().subplots()
    draw_seen(axes, frame[frame["method"] == "svd+ow"], ["svd+ow"], [])
    assert not axes.texts and not axes.patches


def test_the_levels_of_the_paper_are_labelled_at_the_axis_in_the_colour_of_their_method(
    frame: pd.DataFrame,
) -> None:
    axes = Figure().subplots()
    labels = draw_seen(axes, frame, ["svd", "svd+nog", "bn", "svd+ow"], stated(frame))
    levels = {own.text: own for own in labels if own.arrow}
    assert {text: own.value for text, own in levels.items()} == {
        **{"paper: SVD": 1e12, "paper: NOG": 1e6, "paper: OW": 1e3, "paper: BN": 1e3}
    }
    assert levels["paper: NOG"].color == line_style("svd+nog")["color"]
    low, high = axes.get_ylim()
    assert low < 1e3 and high > 2e17


def test_a_line_on_the_support_is_labelled_with_its_rank_at_its_end(frame: pd.DataFrame) -> None:
    labels = draw_support(Figure().subplots(), frame, ["svd+ow", "svd", "ns"])
    assert [(own.text, own.value) for own in labels] == [("OW (27)", 1e9), ("SVD (27)", 1e15)]


def test_an_infinite_kappa_is_drawn_at_the_top() -> None:
    frame = pd.concat([curve("svd", np.inf), curve("svd+ow", 1e10)])
    axes = Figure().subplots()
    labels = draw_seen(axes, frame, ["svd", "svd+ow"], [])
    assert labels[0].value == axes.get_ylim()[1]
    support = Figure().subplots()
    draw_support(support, frame, ["svd", "svd+ow"])
    assert set(support.lines[0].get_ydata()) == {support.get_ylim()[1]}
