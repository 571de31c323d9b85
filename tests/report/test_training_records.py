"""Training curves of runs, against the tables of the runs themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_factory import write_run, write_study

from orthocond.artifacts.csv_tables import CONDITIONING, METRICS
from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study
from orthocond.report.training_records import (
    QUANTITIES,
    Quantity,
    curves_of,
    records,
    selections,
    spread,
)

BY_COLUMN = {quantity.column: quantity for quantity in QUANTITIES}


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.column)
def test_every_quantity_is_a_column_of_its_table(quantity: Quantity) -> None:
    assert quantity.column in (CONDITIONING if quantity.probed else METRICS)


def test_records_are_the_rows_of_the_table_without_blanks(study: Study) -> None:
    run = study.select("dbn").runs["svd"][0]
    found = records(run)
    assert set(found) == set(BY_COLUMN)
    losses = zip(run.metrics["step"], run.metrics["train_loss"], strict=True)
    assert found["train_loss"].to_dict() == dict(losses)
    training = run.conditioning[run.conditioning["phase"] == "train"]
    np.testing.assert_array_equal(found["kappa_support"], training["kappa_support"])
    assert found["eta"].empty
    assert list(records(run, [BY_COLUMN["lr"]])) == ["lr"]


@pytest.mark.parametrize("points", [2, 7, 59, 60, 61])
def test_thinned_records_keep_both_ends_and_only_recorded_values(study: Study, points: int) -> None:
    run = study.select("dbn").runs["svd"][0]
    every = records(run)["kappa_support"]
    kept = records(run, [BY_COLUMN["kappa_support"]], points)["kappa_support"]
    assert len(kept) == min(points, len(every)) and kept.index.is_monotonic_increasing
    assert kept.iloc[0] == every.iloc[0] and kept.iloc[-1] == every.iloc[-1]
    pd.testing.assert_series_equal(kept, every.loc[kept.index])


def test_the_spread_is_median_and_range_of_the_seeds_that_have_a_step(study: Study) -> None:
    runs = [records(run)["train_loss"] for run in study.select("dbn").runs["svd"]]
    table = spread(runs).set_index("step")
    np.testing.assert_allclose(table["median"], np.median(runs, axis=0))
    np.testing.assert_allclose(table["low"], np.min(runs, axis=0))
    np.testing.assert_allclose(table["high"], np.max(runs, axis=0))
    assert (table["n"] == len(runs)).all()
    longer = pd.concat([runs[0], pd.Series([7.0], index=[150])])
    assert list(spread([longer, runs[1]])["n"]) == [2, 2, 2, 2, 1]
    assert spread([]).empty


def test_controls_with_a_wide_stem_are_curves_of_their_own(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "svd+nog"))
    write_run(tmp_path, "dbn", "svd", 0, stem_kernel=11)
    found = list(curves_of(selections(Study(tmp_path), "dbn")))
    assert [c.name for c in found] == ["SVD", "SVD + NOG", "SVD (11×11 stem)"]
    assert [c.control for c in found] == [False, False, True]
    assert [len(c.runs) for c in found] == [2, 2, 1]


def test_without_complete_runs_the_error_says_that_all_diverged(tmp_path: Path) -> None:
    write_run(tmp_path, "dbn", "svd", 0, status="diverged")
    with pytest.raises(MissingRuns, match=r"every run of task 'dbn' .* diverged"):
        selections(Study(tmp_path), "dbn")
