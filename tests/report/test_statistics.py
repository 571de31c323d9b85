from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from study_factory import write_run, write_study

from orthocond.report.statistics import (
    contrasts,
    detectable_remark,
    difference,
    final_error,
    holm,
    of_summary,
    smallest_detectable,
)
from orthocond.report.study import Study


def test_a_paired_difference_is_a_one_sample_t_test_of_the_differences() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    found = difference(a, b)
    plain = stats.ttest_1samp(a - b, 0)
    low, high = plain.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((plain.pvalue, low, high))
    assert (found.mean, found.std) == pytest.approx(((a - b).mean(), (a - b).std(ddof=1)))


def test_differences_that_are_equal_up_to_rounding_have_no_interval() -> None:
    a, b = [0.3, 0.2], [0.2, 0.1]
    assert a[0] - b[0] != a[1] - b[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy's, of cancellation
        found = difference(a, b)
    assert (found.mean, found.std) == (pytest.approx(0.1), 0) and np.isnan(
        [found.low, found.high, found.p]
    ).all()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0]])
def test_too_few_pairs_have_no_interval(values: list[float]) -> None:
    found = difference(values, [0.0] * len(values))
    assert found.n == len(values) and np.isnan([found.low, found.high, found.p]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_the_step_down_procedure(p: list[float]) -> None:
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected


def test_holm_counts_comparisons_whose_runs_are_missing() -> None:
    assert holm([0.02, float("nan"), 0.04])[::2] == [0.06, 0.08]


def test_the_smallest_detectable_difference_is_detected_with_the_stated_power() -> None:
    size, rng = smallest_detectable(2.0, 5), np.random.default_rng(0)
    samples = rng.normal(size, 2.0, size=(4000, 5))
    power = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.02)  # 3 standard errors
    assert np.isnan(smallest_detectable(1.0, 1))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, ("svd", "svd+nog", "svd+ow", "bn"), seeds=3)
    for seed in range(2):
        write_run(folder, "dbn", "svd", seed, stem_kernel=11)
    return Study(folder)


def test_only_the_primary_family_has_p_values_and_it_comes_first(study: Study) -> None:
    table = contrasts(study)
    assert list(table["family"]) == ["primary"] * 4 + ["exploratory"] * 3
    assert list(table["contrast"][:3]) == [
        "SVD + NOG against SVD",
        "SVD + OLR against SVD",
        "SVD + OW against SVD (11×11 stem)",
    ]
    others = ["SVD against SVD (11×11 stem)", "BN against SVD", "SVD + OW against SVD"]
    assert list(table["contrast"][4:]) == others
    assert table["p"][4:].isna().all() and table["low"][5:].notna().all()
    tested = table[table["p"].notna()]
    assert list(tested["method"]) == ["svd+nog", "svd+ow"]
    adjusted = holm(table["p"][:4].to_list())
    assert table["p_holm"][:4].tolist() == pytest.approx(adjusted, nan_ok=True)
    assert tested["p_holm"].min() == pytest.approx(4 * tested["p"].min())


def test_a_contrast_pairs_equal_seeds_of_the_method_and_its_control(study: Study) -> None:
    table = contrasts(study).set_index("contrast")
    runs = study.select("dbn").runs
    expected = [
        a.summary["recalibrated_error"] - b.summary["recalibrated_error"]
        for a, b in zip(runs["svd+nog"], runs["svd"], strict=True)
    ]
    assert table.at["SVD + NOG against SVD", "mean"] == pytest.approx(np.mean(expected))
    assert table.at["SVD + NOG against SVD", "n"] == 3
    assert table.at["SVD + OW against SVD (11×11 stem)", "n"] == 2
    assert table.at["SVD + OLR against SVD", "n"] == 0


def test_errors_are_recalibrated_where_the_task_has_statistics_and_another_number_can_be_named(
    study: Study,
) -> None:
    plain = study.select("dbn").runs["svd"][0]
    assert final_error(plain) == plain.summary["recalibrated_error"] != plain.summary["error"]
    averaged = contrasts(study, reading=of_summary("error")).set_index("contrast")
    runs = study.select("dbn").runs
    expected = [
        a.summary["error"] - b.summary["error"]
        for a, b in zip(runs["svd+nog"], runs["svd"], strict=True)
    ]
    assert averaged.at["SVD + NOG against SVD", "mean"] == pytest.approx(np.mean(expected))


def test_runs_that_differ_in_more_than_the_stem_are_no_control(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "svd+ow"), seeds=2)
    for seed in range(2):
        write_run(tmp_path, "dbn", "svd", seed, stem_kernel=11, lr=0.05)
    table = contrasts(Study(tmp_path)).set_index("contrast")
    assert table.at["SVD + OW against SVD (11×11 stem)", "n"] == 0


def test_a_remark_states_the_smallest_detectable_difference(study: Study) -> None:
    text = detectable_remark(study.select("dbn"), "error")
    pooled = np.sqrt((contrasts(study).query("baseline == 'svd' and n == 3")["std"] ** 2).mean())
    size = smallest_detectable(pooled, 3)
    assert text is not None and f"is {size:.2g} points with 3 paired seeds (" in text
    assert detectable_remark(study.select("dbn", ["svd"]), "error") is None


def test_the_pooled_deviation_is_weighted_by_the_number_of_seeds(study: Study) -> None:
    errors = {"svd": [30, 30, 30, 30], "svd+nog": [29, 31], "svd+ow": [30, 31, 32, 33]}
    runs: Any = {
        method: [SimpleNamespace(summary={"seed": s, "error": e}) for s, e in enumerate(values)]
        for method, values in errors.items()
    }
    text = detectable_remark(replace(study.select("dbn"), runs=runs), "error")
    pooled = np.sqrt((2.0 + 5.0) / (1 + 3))  # sums of squares over degrees of freedom
    sizes = [f"{smallest_detectable(pooled, n):.2g} points with {n}" for n in (2, 4)]
    assert text is not None and f"is {', '.join(f'{s} paired seeds' for s in sizes)} (" in text
