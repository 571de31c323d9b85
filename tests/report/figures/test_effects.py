from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from study_factory import write_study

from orthocond.report.commands import MissingRuns
from orthocond.report.figures.effects import FIGURE, METHODS
from orthocond.report.statistics import of_summary, paired
from orthocond.report.study import Study
from orthocond.report.style import theme


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of one data set; the second has one treatment less."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder / "all", ("svd", *METHODS), seeds=3, data={"train_images": 44928})
    few = {"epochs": 45, "data": {"train_images": 4992}}
    write_study(folder / "few", ("svd", *METHODS[:2]), seeds=2, **few)
    return folder


def test_the_last_effect_of_a_study_is_its_paired_difference(runs: Path) -> None:
    study = Study(runs)
    frame = FIGURE.data(study).frame
    assert set(frame["study"]) == {"all", "few"} and frame["study"].iloc[0] == "few"
    for name, n in (("all", 3), ("few", 2)):
        own = frame[(frame["study"] == name) & (frame["method"] == "svd+nog")]
        assert list(own["step"]) == [30, 60, 90, 120] and set(own["n"]) == {n}
        chosen = study.select("dbn", name=name).runs
        found = paired(chosen["svd+nog"], chosen["svd"], of_summary("recalibrated_error"))
        assert own["mean"].iloc[-1] == pytest.approx(found.mean)
        assert own["low"].iloc[-1] == pytest.approx(found.low, abs=1e-6)


def test_the_figure_says_which_studies_and_treatments_are_missing(runs: Path) -> None:
    numbers = FIGURE.data(Study(runs))
    remarks = numbers.provenance.remarks
    assert any("few (cifar10-jpeg): not run here: SVD + slow" in text for text in remarks)
    assert "Not run here: preset cifar10-long, 44,928 images, 20 epochs" in remarks
    assert not any("preset cifar10-few" in text for text in remarks)
    assert any("--preset cifar10-long" in text for text in numbers.provenance.commands)
    assert any(text.startswith("few: SVD ends with ") for text in remarks)
    assert "in few (step 120)" in FIGURE.alt(numbers)


def test_a_study_of_plain_svd_alone_is_left_out(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    write_study(tmp_path / "runs" / "alone", ("svd",), eps=0.1)
    provenance = FIGURE.data(Study(tmp_path / "runs")).provenance
    assert "alone" not in " ".join([provenance.note, *provenance.remarks, *provenance.commands])


def test_each_study_has_a_line_and_a_point_in_each_treatment(runs: Path) -> None:
    numbers = FIGURE.data(Study(runs))
    with theme():
        figure = FIGURE.draw(numbers)
    lines = [len(axes.get_lines()) for axes in figure.axes[::2]]
    assert lines == [3, 3, 2]  # the zero line, and one for each study
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["few", "all"] and len(figure.axes) == 6
    points = [
        np.diff(sorted(c[0].get_xdata()[0] for c in axes.containers)) for axes in figure.axes[1:4:2]
    ]
    assert all(gap > 0 for gap in points)


def test_a_single_seed_has_an_open_marker_and_no_interval(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "svd+nog"), seeds=1)
    write_study(tmp_path, ("svd+slow",), seeds=1)
    figure = FIGURE.draw(FIGURE.data(Study(tmp_path)))
    points = [axes.containers[0] for axes in figure.axes[1::2]]
    assert {point[0].get_markerfacecolor() for point in points} == {"none"}
    assert not any(point.has_yerr for point in points)


def test_without_a_treatment_the_command_is_named(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "bn"), data="cifar10")
    words = rf"--task dbn --data cifar10 .*--method nog .*--seeds 0-1 --out {tmp_path}$"
    with pytest.raises(MissingRuns, match=words):
        FIGURE.data(Study(tmp_path))


def test_the_finding_counts_the_studies_below_the_line(runs: Path) -> None:
    numbers = FIGURE.data(Study(runs))
    ends = numbers.frame.groupby(["method", "study"])["mean"].last()
    below = (ends["svd+nog"] < 0).sum()
    assert f"SVD + NOG in {below} of 2 studies" in FIGURE.finding(numbers)


def test_the_command_for_a_study_that_was_not_run_can_be_pasted(tmp_path: Path) -> None:
    write_study(tmp_path / "my runs", ("svd", "svd+nog"))
    commands = FIGURE.data(Study(tmp_path / "my runs")).provenance.commands
    found = [shlex.split(c)[-1] for c in commands if "--preset cifar10-long" in c]
    assert found == [str(tmp_path / "my runs" / "cifar10-long")]
