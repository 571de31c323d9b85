"""The training curves of every method of a study."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from study_factory import write_run, write_study

from orthocond.report.commands import MissingRuns
from orthocond.report.figures import training_curves
from orthocond.report.figures.training_curves import (
    COMBINED,
    COMBINED_STEPS,
    FIGURE,
    GRADIENTS,
    ROWS,
    SOLVERS,
    STEPS,
    WEIGHTS,
    figure_of,
    kind,
)
from orthocond.report.provenance import Numbers
from orthocond.report.study import Study
from orthocond.report.style import line_style, theme
from orthocond.report.training_records import Curves


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    """A study of three kinds of methods, one of them a control."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder, ("svd", "bn", "svd+nog", "svd+ow"), seeds=3)
    write_run(folder, "dbn", "svd", 0, stem_kernel=11)
    return FIGURE.data(Study(folder))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ns", SOLVERS),
        ("svd+ol", WEIGHTS),
        ("svd+ow-stiefel", WEIGHTS),
        ("svd+rescale", GRADIENTS),
        ("svd+slow", STEPS),
        ("svd+nog+sn", COMBINED),
        ("svd+ow+slow", COMBINED_STEPS),
        ("svd+nog+ow+olr", COMBINED_STEPS),
    ],
)
def test_a_method_is_in_the_column_of_what_it_acts_on(method: str, expected: str) -> None:
    assert kind(Curves(method, method, False, ())) == expected
    assert kind(Curves(method, method, True, ())) == SOLVERS


def test_the_lines_are_medians_and_ranges_over_the_seeds(numbers: Numbers) -> None:
    frame = numbers.frame
    own = frame[(frame["name"] == "SVD + NOG") & (frame["quantity"] == "train_top1")]
    assert list(own["step"]) == [30, 60, 90, 120] and set(own["n"]) == {3}
    assert (own["low"] < own["median"]).all() and (own["median"] < own["high"]).all()
    assert set(frame["name"]) == {"SVD", "BN", "SVD + NOG", "SVD + OW", "SVD (11×11 stem)"}


def test_every_panel_draws_its_kind_beside_plain_svd_or_says_that_nothing_was_recorded(
    numbers: Numbers,
) -> None:
    with theme():
        figure = FIGURE.draw(numbers)
        color = line_style("svd+nog")["color"]
        plt.close(figure)
    grid = np.array(figure.axes).reshape(1 + len(ROWS), 3)
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in grid[0]]
    assert named == [["SVD", "BN", "SVD (11×11 stem)"], ["SVD", "OW"], ["SVD", "NOG"]]
    for row, quantity in zip(grid[1:], ROWS, strict=True):
        assert row[0].get_title(loc="left") == quantity.name
        assert row[0].get_yscale() == ("log" if quantity.log else "linear")
        if quantity.column in ("eta", "eta_used"):  # no method has OLR
            assert [axes.texts[0].get_text() for axes in row] == ["not recorded"] * 3
            assert list(row[0].get_yticks()) == []
            continue
        assert [len(axes.lines) for axes in row] == [3, 2, 2]
        assert row[2].lines[1].get_color() == color
        assert [len(axes.collections) for axes in row] == [3, 2, 2]


def test_another_task_can_be_drawn_and_without_runs_the_command_is_named(
    study: Study, tmp_path: Path
) -> None:
    own = figure_of("gcp")
    assert own.name == "curves-gcp" and "global covariance pooling" in own.caption
    assert set(FIGURE.data(study).frame["study"]) == {"dbn-study"}
    found = own.data(study)
    assert set(found.frame["study"]) == {"gcp-study"}
    assert "recalibrated" not in "".join(found.frame["quantity"])
    assert "test accuracy, recalibrated (%): not recorded" in own.alt(found)
    with pytest.raises(MissingRuns, match="orthocond train"):
        FIGURE.data(Study(tmp_path))


def test_the_description_names_plain_svd_and_both_extremes(numbers: Numbers) -> None:
    frame = numbers.frame
    own = frame[(frame["quantity"] == "eval_top1") & (frame["step"] == 120)]
    ends = own.set_index("name")["median"]
    text = FIGURE.alt(numbers)
    assert text.startswith("Training curves of 5 methods of decorrelated BN in ")
    assert (
        f"test accuracy (%): SVD {ends['SVD']:.3g}, lowest {ends.idxmin()} {ends.min():.3g}, "
        f"highest {ends.idxmax()} {ends.max():.3g}"
    ) in text
    assert "learning rate: 0.1 for every method that has it" in text


def test_the_methods_of_one_column_differ_in_colour_or_dashes() -> None:
    styles: dict[str, list[tuple[object, object]]] = {}
    methods = (
        "svd+sn svd+ol svd+ow svd+ow-stiefel svd+ow-conv svd+nog svd+polargrad svd+rescale "
        "svd+olr svd+slow svd+olr-newton svd+olr-exact svd+muon svd+nog+sn svd+nog+ol svd+nog+ow "
        "svd+nog+olr svd+ow+olr svd+ow+slow svd+nog+ow+olr svd+nog+ow+olr-exact svd+nog+ow+slow"
    )
    for method in methods.split():
        style = line_style(method)
        column = kind(Curves(method, method, False, ()))
        styles.setdefault(column, []).append((style["color"], style["linestyle"]))
    for own in styles.values():
        assert len(set(own)) == len(own)
    assert training_curves.KINDS[1:] == tuple(
        kind for kind in training_curves.KINDS if kind in styles
    )
