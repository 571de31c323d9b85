from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from study_factory import write_run, write_study

from orthocond.measure.recorded_runs import named_runs
from orthocond.report.regimes import gap
from orthocond.report.results import COLUMNS, results_csv
from orthocond.report.study import Study

RUNS = Path(__file__).parents[2] / "runs"


def test_the_committed_results_are_those_of_the_runs() -> None:
    committed = (RUNS / "results.csv").read_bytes()
    assert committed == results_csv(named_runs([RUNS])), "run: make results"


def test_each_run_has_a_row_with_its_final_figures(tmp_path: Path) -> None:
    write_study(tmp_path / "b", ("svd", "svd+nog"))
    write_study(tmp_path / "a", ("svd",), seeds=1, epochs=45, data={"train_images": 4992})
    write_run(tmp_path / "b", "dbn", "svd", 7, status="diverged")
    write_study(tmp_path / "pool", ("gap",), "gcp", seeds=1)
    runs = Study(tmp_path).runs
    rows = list(csv.DictReader(io.StringIO(results_csv(runs).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["study"] for row in rows] == ["a", *["b"] * 5, "pool"]
    run = next(r for r in runs if r.path.parent.name == "a")
    assert rows[0]["images"] == "4992" and rows[0]["method"] == "svd"
    assert float(rows[0]["error"]) == pytest.approx(run.summary["error"])
    assert float(rows[0]["recalibrated_error"]) == pytest.approx(run.summary["recalibrated_error"])
    assert float(rows[0]["gap"]) == pytest.approx(gap(run))
    late = run.summary["conditioning"]
    assert float(rows[0]["kappa_common"]) == pytest.approx(late["kappa_common"])
    assert sum(row["status"] == "diverged" for row in rows) == 1
    assert rows[-1]["recalibrated_error"] == "" and rows[-1]["gap"]
