from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from study_factory import write_run, write_study

from orthocond.report.registry import TABLES
from orthocond.report.study import Study
from orthocond.report.tables.comparison import UNREAD, is_data_set, mean_and_spread

OURS = "here: cifar10-jpeg"


def test_our_numbers_are_computed_from_the_runs(study: Study) -> None:
    table = TABLES["tab1"](study)
    for suffix, key in (("", "error"), (", recalibrated", "recalibrated_error")):
        values = [run.summary[key] for run in study.select("dbn", ["svd"]).runs["svd"]]
        group = OURS + suffix
        assert table.frame.at["svd", (group, "error mean")] == pytest.approx(
            statistics.mean(values)
        )
        assert table.frame.at["svd", (group, "error std")] == pytest.approx(
            statistics.stdev(values)
        )
        assert table.frame.at["svd", (group, "error min")] == min(values)
    assert table.frame.at["svd", (OURS, "n")] == 2


def test_numbers_of_the_paper_are_shown_beside_ours(study: Study) -> None:
    table = TABLES["tab2"](study)
    assert table.frame.at["svd+nog", ("paper: CIFAR100", "error min")] == 19.15
    assert np.isnan(table.frame.at["svd+nog", ("paper: CIFAR100", "error mean")])
    assert table.cells["paper: CIFAR100"]["svd+nog"] == UNREAD
    assert table.cells["paper: CIFAR100"]["bn"] == ""  # the paper has no such row


def test_rows_have_short_names_and_a_note_has_those_of_the_paper(study: Study) -> None:
    for number in range(1, 6):
        table = TABLES[f"tab{number}"](study)
        assert max(map(len, table.labels.values())) <= len("SVD + NOG + OW + OLR (exact)")
        assert len(set(table.labels.values())) == len(table.labels)
        (said,) = [r for r in table.provenance.remarks if r.startswith("Names in")] or [""]
        assert ("NOG is Nearest Orthogonal Gradient, OLR is Optimal" in said) == (number > 3)


def test_methods_and_data_sets_without_runs_are_marked_and_have_a_command(study: Study) -> None:
    table = TABLES["tab1"](study)
    assert set(table.cells["here: CIFAR100"].values()) == {"not run here"}
    assert table.frame[("here: CIFAR100", "error mean")].isna().all()
    assert table.cells[OURS]["svd+sn"] == "not run here"
    assert any("--preset paper-dbn-cifar100" in remark for remark in table.provenance.remarks)
    assert any("not run here: SVD + SN, SVD + OL" in r for r in table.provenance.remarks)
    assert "--method sn --method ol" in table.provenance.commands[0]


def test_another_data_set_than_those_of_the_paper_is_called_a_stand_in(tmp_path: Path) -> None:
    write_study(tmp_path / "a", ("svd", "bn"))
    write_study(tmp_path / "b", ("svd",), seeds=1, data="tiny-imagenet-100")
    table = TABLES["tab4"](Study(tmp_path))
    assert table.frame.at["svd", ("here: tiny-imagenet-100", "n")] == 1
    assert table.cells["here: CIFAR100"]["svd"] == "not run here"
    stand_ins = [r for r in table.provenance.remarks if "stand-in" in r]
    assert len(stand_ins) == 1 and stand_ins[0].startswith("tiny-imagenet-100, at 32 pixels")


def test_a_copy_of_the_papers_data_fills_its_column(study: Study) -> None:
    assert "here: CIFAR10" not in TABLES["tab4"](study).frame.columns.get_level_values(0)
    assert not is_data_set("cifar100", "CIFAR10") and is_data_set("CIFAR10", "CIFAR10")


def test_table_4_has_a_row_for_every_method_that_was_run(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "svd+ow-stiefel", "bn"), seeds=1)
    table = TABLES["tab4"](Study(tmp_path))
    assert list(table.frame.index[-2:]) == ["bn", "svd+ow-stiefel"]
    assert table.labels["svd+ow-stiefel"] == "SVD + OW (Stiefel)"
    assert "svd+ow-stiefel" not in TABLES["tab1"](Study(tmp_path)).frame.index


def test_a_method_whose_runs_all_diverged_is_told_from_one_that_was_not_run(
    tmp_path: Path,
) -> None:
    write_study(tmp_path, ("svd",), seeds=1)
    write_run(tmp_path, "dbn", "svd+sn", 0, status="diverged")
    table = TABLES["tab1"](Study(tmp_path))
    assert table.cells[OURS]["svd+sn"] == "diverged"
    assert table.cells[OURS]["svd+ol"] == "not run here"
    assert any("1 of 1 runs of SVD + SN diverged" in r for r in table.provenance.remarks)


def test_table_5_counts_failures_and_has_both_accuracies(study: Study) -> None:
    table = TABLES["tab5"](study)
    group = "here: tiny-imagenet-100"
    runs = study.select("gcp", ["svd"]).runs["svd"]
    failures = [run.summary["failures"] for run in runs]
    assert table.frame.at["svd", (group, "failures")] == statistics.mean(failures)
    top5 = [run.summary["top5"] for run in runs]
    assert table.frame.at["svd", (group, "top-5 mean")] == pytest.approx(statistics.mean(top5))
    assert table.frame.at["svd", ("paper", "Failure Times")] == 5
    assert table.frame.at["gap", (group, "n")] == 2


def test_mean_and_spread_ignore_missing_values() -> None:
    assert mean_and_spread([1.0, None, 3.0], "x") == {"x mean": 2.0, "x std": pytest.approx(2**0.5)}
    one = mean_and_spread([4.0], "x")
    assert one["x mean"] == 4 and np.isnan(one["x std"])
    assert np.isnan(mean_and_spread([], "x")["x mean"])
