"""Effects in every study, against the differences of results.csv."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study_factory import write_study

from orthocond.report import findings
from orthocond.report.commands import MissingRuns
from orthocond.report.figures.findings import FIGURE
from orthocond.report.study import Study
from orthocond.report.style import theme
from orthocond.report.tables.cells import EFFECTS
from orthocond.report.tables.findings import build
from orthocond.report.tables.render import render

matplotlib.use("agg")
OTHERS = "--method nog --method olr --method ow --method nog+ow+olr"
RUNS = Path(__file__).parents[2] / "runs"


@pytest.fixture(scope="module")
def runs() -> Study:
    return Study(RUNS)


def test_effects_are_the_paired_differences_of_the_results(runs: Study) -> None:
    results = pd.read_csv(RUNS / "results.csv")
    results = results[results["stem_kernel"] != 11]  # the control with another stem
    results["judged"] = results["recalibrated_error"].fillna(results["error"])  # none in pooling
    errors = results.pivot_table(index=["study", "seed"], columns="method", values="judged")
    found = findings.effects(runs, tuple(EFFECTS))
    assert len(found) > 10
    for row in found.itertuples():
        pairs = errors.loc[row.study][[row.method, "svd"]].dropna()
        expected = stats.ttest_rel(*pairs.to_numpy().T)
        assert row.n == len(pairs)
        assert row.mean == pytest.approx(float(-pairs.diff(axis=1)["svd"].mean()))
        interval = expected.confidence_interval(0.95)
        np.testing.assert_allclose([row.low, row.high], [interval.low, interval.high], rtol=1e-9)


def test_the_table_has_a_row_per_study_and_signed_cells(runs: Study) -> None:
    table = build(runs)
    text = render(table)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(table.frame) and all(row.count("|") == 7 for row in rows)
    assert "not run here" in text and "| +7.2 [+6.2, +8.2]" in text


def test_the_figure_has_a_panel_per_study_and_shows_every_interval(runs: Study) -> None:
    numbers = FIGURE.data(runs)
    figure = FIGURE.draw(numbers)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == numbers.frame.groupby(["task", "study"]).ngroups
    drawn = sum(len(line.get_xdata()) == 1 for axes in panels for line in axes.lines)
    assert drawn == len(numbers.frame)
    points = [line for axes in panels for line in axes.lines if len(line.get_xdata()) == 1]
    single = numbers.frame["n"] == 1
    assert [line.get_markerfacecolor() == "none" for line in points] == single.tolist()
    said = any("Open circles" in text for text in numbers.provenance.remarks)
    assert said == single.any()
    assert "SVD + NOG +0.6 [+0.2, +1.0]" in FIGURE.alt(numbers)
    assert ("(one seed)" in FIGURE.alt(numbers)) == single.any()


def test_long_names_of_studies_stay_on_the_page(runs: Study) -> None:
    numbers = FIGURE.data(runs)
    name = "MY-WHITENED-NETWORKS-OF-NOVEMBER"
    frame = numbers.frame.replace({"study": {"tiny32-cpu": name}})
    with theme(dark=False):
        figure = FIGURE.draw(dataclasses.replace(numbers, frame=frame))
        figure.canvas.draw()
        titles = [axes._left_title for axes in figure.axes]
    assert any(name in title.get_text().replace("\n", "") for title in titles)
    for title in titles:
        box = title.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_without_runs_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingRuns, match="orthocond train"):
        findings.effects(Study(tmp_path), tuple(EFFECTS))


@pytest.mark.parametrize("task", ["dbn", "gcp"])
def test_the_command_completes_the_study_that_is_there(tmp_path: Path, task: str) -> None:
    """Without plain SVD there is no effect, whatever else was run."""
    write_study(tmp_path / "mine", ("svd+nog",), task, seeds=3, data="leaves", lr=0.05)
    with pytest.raises(MissingRuns) as error:
        findings.effects(Study(tmp_path), tuple(EFFECTS))
    (command,) = error.value.commands
    assert f"--task {task} --data leaves" in command and "--set lr=0.05" in command
    assert command.endswith(f"--method svd {OTHERS} --seeds 0-2 --out {tmp_path / 'mine'}")
