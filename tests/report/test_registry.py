from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from study_factory import write_study

from orthocond.errors import UserError
from orthocond.report.commands import MissingRuns
from orthocond.report.output import write_figure
from orthocond.report.provenance import Numbers
from orthocond.report.registry import FIGURES, TABLES, chosen
from orthocond.report.study import Study
from orthocond.report.style import COLUMN, SMALL, theme

SHOWN = {"curves": 8.0}  # inches: wider than a column, for which book.css has a rule of its own
OVERALL = ["effects", "findings", "curves"]  # figures that the paper does not have
CURVES = [name for name in FIGURES if name not in ("fig6", "fig7", *OVERALL)]


def texts_of(figure: Figure) -> list[Text]:
    """All texts of a drawn figure but the numbers at its ticks, which the theme sets."""
    ticks = figure.findobj(Tick)
    numbers = {label for tick in ticks for label in (tick.label1, tick.label2)}
    found = [text for text in figure.findobj(Text) if text not in numbers]
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_data_a_drawing_and_an_alt_text(
    name: str, study: Study, tmp_path: Path
) -> None:
    """And its files are written from numbers that are computed once."""
    own = FIGURES[name]
    assert own.name == name and own.caption.startswith(
        "The " if name in OVERALL else f"Figure {name[3:]}: "
    )
    computed, drawn = [], []

    def data_of(own_study: Study) -> Numbers:
        computed.append(own.data(own_study))
        return computed[-1]

    def draw(numbers: Numbers) -> Figure:
        drawn.append(own.draw(numbers))
        return drawn[-1]

    write_figure(study, replace(own, data=data_of, draw=draw), tmp_path, ["svg"])
    (data,), (figure, _) = computed, drawn  # for light and for dark pages
    assert len(data.frame) and data.provenance.note
    assert len(own.alt(data)) > 80
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 50
    texts = texts_of(figure)
    scale = figure.get_figwidth() / SHOWN.get(name, COLUMN)
    assert min(text.get_fontsize() for text in texts) >= SMALL * scale
    for text in texts:  # inside, and no block of text: how numbers were made is in the caption
        box, content = Text.get_window_extent(text), text.get_text()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, content
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, content
        assert len(content) <= 50, content


@pytest.mark.parametrize("name", CURVES)
def test_a_conditioning_figure_has_a_second_panel_for_kappa_on_the_support(
    name: str, study: Study
) -> None:
    with theme():
        figure = FIGURES[name].draw(FIGURES[name].data(study))
    texts = [text.get_text() for text in texts_of(figure)]
    for name in ("as an SVD sees it", "on the support"):
        assert sum(name in text for text in texts) == 1
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert any(re.fullmatch(r"SVD \((27|63|27, 63)\)", text) for text in texts)


@pytest.mark.parametrize("name", [*CURVES, *OVERALL, *TABLES])
def test_without_runs_the_error_names_the_command(name: str, tmp_path: Path) -> None:
    make = FIGURES[name].data if name in FIGURES else TABLES[name]
    with pytest.raises(MissingRuns, match=r"orthocond (train|measure) "):
        make(Study(tmp_path))


def test_figure_1_leaves_the_panels_of_a_task_without_runs_empty(tmp_path: Path) -> None:
    study = Study(write_study(tmp_path, ("svd",), seeds=1))
    with theme():
        figure = FIGURES["fig1"].draw(FIGURES["fig1"].data(study))
    assert sum(t.get_text() == "not run here" for axes in figure.axes for t in axes.texts) == 2


def test_figure_5_shows_the_later_half_and_marks_the_evaluations(study: Study) -> None:
    data = FIGURES["fig5"].data(study)
    frame = data.frame
    assert frame["step"].min() == 60
    assert set(frame.loc[frame["phase"] == "eval", "step"]) == {60, 90, 120}
    assert "times that of training" in FIGURES["fig5"].alt(data)


def test_requested_names_are_taken_once_and_unknown_ones_refused() -> None:
    assert chosen("figure", ["all", "fig1"], ["fig1", "fig2"]) == ["fig1", "fig2"]
    with pytest.raises(UserError, match=r"unknown figure 'fig22': allowed are .*, all; did you"):
        chosen("figure", ["fig22"], FIGURES)
