from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from study_factory import write_run, write_study

from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study
from orthocond.report.tables.comparison import only
from orthocond.report.tables.overview import of_task
from orthocond.report.tables.render import TABLE_FORMATS, render


def test_the_overview_shows_errors_ranks_and_condition_numbers_of_late_training(
    study: Study,
) -> None:
    frame = of_task(study, "dbn").frame
    runs = study.select("dbn").runs["svd"]
    errors = [100 - float(run.metrics["eval_top1"].iloc[-1]) for run in runs]
    assert frame.at["svd", ("", "error mean")] == pytest.approx(np.mean(errors))
    assert frame.at["svd", ("", "error std")] == pytest.approx(np.std(errors, ddof=1), rel=1e-5)
    again = frame.at["svd", ("recalibrated", "error mean")]
    assert again == pytest.approx(np.mean(errors) - 2)  # the factory gives two points more
    late = [r.conditioning.query("phase == 'train' and step >= 108")["kappa"] for r in runs]
    assert frame.at["svd", ("", "kappa")] == pytest.approx(np.median([k.median() for k in late]))
    assert (frame.at["svd", ("", "rank")], frame.at["svd+ow", ("", "rank")]) == (27, 64)


def test_methods_of_the_paper_come_first_in_its_order(tmp_path: Path) -> None:
    methods = ("svd+slow", "svd+nog", "bn", "svd+ow", "svd")
    frame = of_task(Study(write_study(tmp_path, methods, seeds=1)), "dbn").frame
    assert list(frame.index) == ["svd", "bn", "svd+ow", "svd+nog", "svd+slow"]


def test_controls_with_a_wide_stem_have_rows_and_other_settings_have_none(
    tmp_path: Path,
) -> None:
    write_study(tmp_path, ("svd", "svd+ow"), seeds=2)
    write_run(tmp_path, "dbn", "svd", 0, stem_kernel=11)
    table = of_task(Study(tmp_path), "dbn")
    frame, provenance = table.frame, table.provenance
    assert list(frame.index) == ["svd", "svd+ow", "svd (11×11 stem)"]
    assert list(frame[("", "n")]) == [2, 2, 1]
    assert len(provenance.runs) == 5
    assert not any("left out" in remark for remark in provenance.remarks)
    assert list(only(table, ["svd"]).frame.index) == ["svd", "svd (11×11 stem)"]
    write_run(tmp_path, "dbn", "bn", 0, stem_kernel=11, lr=0.05)
    write_run(tmp_path, "dbn", "bn", 1, stem_kernel=11, lr=0.05)
    assert list(of_task(Study(tmp_path), "dbn").frame.index) == ["svd", "svd+ow"]


def test_the_overview_of_pooling_has_no_recalibrated_error_in_any_format(study: Study) -> None:
    table = of_task(study, "gcp")
    assert ("recalibrated", "error mean") not in table.frame
    text = render(table, "md")
    assert "| κ on the support" in text and "recalibrated" not in text and "†" not in text
    row = next(line for line in text.splitlines() if line.startswith("| SVD  "))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2] == "2" and cells[4] == "63" and cells[5].endswith(("e+15", "e+16"))


def test_the_data_set_with_most_runs_is_shown_unless_another_is_asked_for(tmp_path: Path) -> None:
    write_study(tmp_path / "first", ("svd", "svd+nog"))
    study = Study(write_study(tmp_path / "second", ("svd", "bn"), seeds=1, data="other").parent)
    assert list(of_task(study, "dbn").frame.index) == ["svd", "svd+nog"]
    assert list(of_task(study, "dbn", "other").frame.index) == ["svd", "bn"]
    with pytest.raises(MissingRuns):
        of_task(study, "dbn", "absent")


@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_one_seed_has_an_error_and_no_deviation(tmp_path: Path, format: str) -> None:
    text = render(of_task(Study(write_study(tmp_path, ("svd",), seeds=1)), "dbn"), format)
    assert "27" in text and "nan" not in text
