from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from study_factory import write_run, write_study

from orthocond.report.commands import MissingRuns
from orthocond.report.registry import TABLES
from orthocond.report.study import Study
from orthocond.report.tables.differences import of_task
from orthocond.report.tables.render import render


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = write_study(tmp_path_factory.mktemp("study"), ("svd", "svd+nog", "svd+ow"), seeds=3)
    for seed in range(2):
        write_run(folder, "dbn", "svd", seed, stem_kernel=11)
    return Study(folder)


def test_a_difference_is_taken_between_runs_with_equal_seeds(study: Study) -> None:
    frame, runs = TABLES["differences"](study).frame, study.select("dbn").runs
    nog, svd = ([run.summary["error"] for run in runs[m]] for m in ("svd+nog", "svd"))
    d = np.subtract(nog, svd)
    test = stats.ttest_1samp(d, 0)
    row = frame.loc["svd+nog - svd", ""]
    expected = [np.mean(d), *test.confidence_interval(0.95), 3]
    shown = ["difference mean", "difference low", "difference high", "n"]
    assert row[shown].tolist() == pytest.approx(expected)
    assert row["p (Holm)"] >= test.pvalue


def test_runs_with_a_wide_stem_are_a_baseline_and_not_set_aside(study: Study) -> None:
    table = TABLES["differences"](study)
    assert table.frame.at["svd+ow - svd (11×11 stem)", ("", "n")] == 2
    assert not any("left out" in remark for remark in table.provenance.remarks)
    assert len(table.provenance.runs) == 11


def test_signs_p_values_and_missing_contrasts_are_shown_in_markdown(study: Study) -> None:
    text = render(TABLES["differences"](study))
    lines = [line.split("|") for line in text.splitlines() if "|" in line]
    rows = {cells[1].strip(): cells for cells in lines}
    nog, olr = rows["SVD + NOG against SVD"], rows["SVD + OLR against SVD"]
    difference = nog[2].strip()
    assert difference[0] in "+-" and difference.count("[") == 1
    assert nog[4].strip() and not rows["SVD + OW against SVD"][4].strip()  # p of the family only
    assert [cell.strip() for cell in olr[2:6]] == ["not run here", "0", "", ""]
    family = "SVD + NOG against SVD; SVD + OLR against SVD; SVD + OW against SVD (11×11 stem); "
    assert f"named before the runs: {family}" in text
    assert "Holm over 4 contrasts" in text  # some have no p-value
    assert "best" not in text  # of differences none is


def test_a_study_with_one_task_shows_that_task(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "svd+nog"), "gcp", data="tiny-imagenet-100")
    assert "covariance pooling on tiny-imagenet-100" in TABLES["differences"](Study(tmp_path)).title
    with pytest.raises(MissingRuns, match="orthocond train"):
        of_task(Study(tmp_path), "dbn")
