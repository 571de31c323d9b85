from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_factory import EPOCH_STEPS, write_run

from orthocond.artifacts.run_reader import Run
from orthocond.measure import run_figures
from orthocond.measure.run_figures import (
    LEVEL,
    factor,
    figures,
    rows_within,
    series,
    spread,
    tables_of,
)


def test_the_factor_is_that_of_the_tables_of_students_distribution() -> None:
    # 97.5% quantiles of a printed table: 4.303 for 2 degrees of freedom, 2.776 for 4
    assert factor(3, 1) == pytest.approx(math.sqrt(2) * 4.303, abs=1e-3)
    assert factor(5, 1) == pytest.approx(math.sqrt(2) * 2.776, abs=1e-3)
    # 20 figures at 5% together have the 99.875% quantile each; for one of them: 99.5% at 10 figures
    assert factor(5, 5) == pytest.approx(math.sqrt(2) * 4.604, abs=1e-3)
    assert factor(2, 1) is None and factor(1, 1) is None and factor(0, 1) is None


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_faithful_retraining_is_refused_as_often_as_the_level_says(seeds: int) -> None:
    """By simulation: recorded run, retrained run and other seeds have one distribution."""
    trials = 40_000
    runs = np.random.default_rng(seeds).normal(size=(seeds + 2, trials, 20))
    apart = abs(runs[0] - runs[1]) / runs[2:].std(axis=0, ddof=1)
    error = 3 * math.sqrt(LEVEL / trials)  # three standard deviations of a frequency
    assert (apart[:, 0] > factor(seeds, 1)).mean() == pytest.approx(LEVEL, abs=error)
    assert (apart > factor(seeds, 20)).any(axis=1).mean() <= LEVEL + error


def test_the_spread_of_the_seeds() -> None:
    assert spread([1.0, 2.0, 3.0]) == 1.0
    assert spread([0.1, 0.1, 0.1]) == 0.0
    assert spread([27, 27, 27], is_count=True) == pytest.approx(math.sqrt(1 / 12))
    assert spread([27, 28, 29], is_count=True) == pytest.approx(math.sqrt(1 + 1 / 12))
    assert spread([1.0, None, 3.0]) is None
    assert spread([1.0, math.inf, 3.0]) is None and spread([]) is None


def test_a_figure_is_judged_at_the_last_epoch_that_has_it() -> None:
    seeds = [{"a": {1: x, 2: 10 * x}, "b": {1: x}} for x in (1.0, 2.0, 3.0)]
    found = {f.name: f for f in figures(seeds[0], {"a": {1: 9.0, 2: 10.5}, "b": {1: 1.0}}, seeds)}
    assert (found["a"].epoch, found["b"].epoch) == (2, 1)
    assert (found["a"].difference, found["a"].largest) == (0.5, 8.0)
    assert found["a"].tolerance == pytest.approx(10 * factor(3, 2)) and found["a"].within is True
    assert (found["b"].difference, found["b"].within) == (0.0, True)


def test_a_figure_without_spread_must_be_equal_and_a_missing_one_is_outside() -> None:
    seeds = [{"lr": {1: 0.1}, "kappa": {1: math.inf}, "loss": {1: x}} for x in (1.0, 2.0, 3.0)]
    here = {"lr": {1: 0.1000001}, "kappa": {1: math.inf}}
    lr, kappa, loss = figures(seeds[0], here, seeds)
    assert (lr.tolerance, lr.within) == (0.0, False)
    assert (kappa.tolerance, kappa.difference, kappa.within) == (None, 0.0, None)
    assert loss.here is None and math.isnan(loss.difference) and loss.within is False
    assert math.isnan(loss.largest)


def test_few_seeds_give_no_tolerance_and_the_same_machine_the_tolerance_zero() -> None:
    seeds = [{"loss": {1: x}} for x in (1.0, 2.0)]
    (figure,) = figures(seeds[0], {"loss": {1: 1.5}}, seeds)
    assert figure.tolerance is None and figure.within is None
    (figure,) = figures(seeds[0], {"loss": {1: 1.5}}, seeds, same_machine=True)
    assert (figure.tolerance, figure.within) == (0.0, False)


def test_the_figures_of_a_run_are_its_columns_and_medians(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, "dbn", "svd", seed=0))
    found = series(tables_of(run, 2 * EPOCH_STEPS))
    assert set(found["train_loss"]) == {1, 2} and "eta" not in found and "step" not in found
    assert found["eval_top1"][2] == run.metrics["eval_top1"][1]
    rows = run.conditioning
    rows = rows[(rows["phase"] == "train") & (rows["epoch"] == 2)]["kappa_support"]
    assert found["train log10 kappa_support"][2] == math.log10(rows.median())
    assert found["eval rank"][1] == 27 and not any("negative" in name for name in found)
    assert set(series(tables_of(run, EPOCH_STEPS // 2))["train rank"]) == {1}
    assert "train_loss" not in series(tables_of(run, EPOCH_STEPS - 1))


def test_the_rows_of_the_first_steps() -> None:
    rows = pd.DataFrame({"phase": ["train"] * 3 + ["eval"], "step": [0, 2, 4, 4]})
    counts = [len(rows_within(rows, steps)) for steps in (0, 1, 3, 4, 5)]
    assert counts == [0, 1, 2, 3, 4]
    assert len(rows_within(pd.DataFrame({"step": [4, 8]}), 4)) == 1


def test_every_field_that_is_a_count_has_the_variance_of_rounding() -> None:
    assert {name.removeprefix("train ") for name in run_figures.COUNTS} >= {"rank", "failures"}
