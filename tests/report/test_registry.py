from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from study_factory import write_study

from orthocond.errors import UserError
from orthocond.report.registry import FIGURES, TABLES, chosen
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import theme

OVERALL = ["effects", "findings"]  # figures of all studies, which the paper does not have
CURVES = [name for name in FIGURES if name not in ("fig6", "fig7", *OVERALL)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_data_a_drawing_and_an_alt_text(name: str, study: Study) -> None:
    own = FIGURES[name]
    assert own.name == name and own.caption.startswith(
        "The " if name in OVERALL else f"Figure {name[3:]}: "
    )
    data = own.data(study)
    assert len(data.frame) and data.provenance.note
    assert len(own.alt(data)) > 80
    with theme():
        figure = own.draw(data)
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 50


@pytest.mark.parametrize("name", CURVES)
def test_a_conditioning_figure_has_a_second_panel_for_kappa_on_the_support(
    name: str, study: Study
) -> None:
    with theme():
        figure = FIGURES[name].draw(FIGURES[name].data(study))
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert "as an SVD sees it" in labels[0] and "on the support" in labels[1]
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert "(27" in (text := figure.legends[0].get_texts()[0].get_text()) or "(63" in text


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
