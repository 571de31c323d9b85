from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from orthocond.artifacts.run_reader import Run
from orthocond.report.figures.curves import (
    WINDOWS,
    curves,
    in_noise,
    late,
    noise_level,
    rank_text,
    window,
)
from orthocond.report.study import Study


@pytest.mark.parametrize("records", [0, 1, 10, 49, 50, 100, 1000])
def test_the_smoothing_window_is_odd_and_small(records: int) -> None:
    assert window(records) % 2 == 1
    assert window(records) <= max(1, records / WINDOWS + 1)


def test_a_curve_is_the_median_over_seeds_of_running_medians(study: Study) -> None:
    selection = study.select("dbn", ["svd"])
    frame = curves(selection)
    plain = []
    for run in selection.runs["svd"]:
        rows = run.conditioning.query("phase == 'train'")["kappa_support"].to_numpy()
        half = window(len(rows)) // 2
        plain.append([np.median(rows[max(0, i - half) : i + half + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(frame["kappa_support"], np.median(plain, axis=0))
    np.testing.assert_allclose(frame["kappa_support_low"], np.min(plain, axis=0))
    np.testing.assert_allclose(frame["kappa_support_high"], np.max(plain, axis=0))
    assert (frame["n"] == 2).all()


def test_each_evaluation_is_one_row(study: Study) -> None:
    frame = curves(study.select("gcp", ["svd"]), "eval")
    assert list(frame["step"]) == [30, 60, 90, 120]


def test_an_infinite_kappa_stays_infinite(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    table = study.select("dbn", ["svd"]).runs["svd"][0].conditioning
    monkeypatch.setattr(Run, "conditioning", table.assign(kappa=np.inf))
    frame = curves(study.select("dbn", ["svd"]))
    assert np.isinf(frame["kappa"]).all() and in_noise(frame) == ["svd"]


def test_kappa_is_noise_only_where_every_record_is_above_the_precision_of_the_features() -> None:
    kappa = [1e9, 2e9, 1e9, 1e7, 1e7, 1e7]
    frame = pd.DataFrame({"method": [*"aabbcc"], "kappa": kappa, "rank_tol": 1e-8})
    assert noise_level(frame) == pytest.approx(1e8)
    assert in_noise(frame) == ["a"]  # b was once below


def test_late_values_are_medians_over_the_last_tenth_of_training() -> None:
    frame = pd.DataFrame(
        {"method": ["a"] * 4 + ["b"], "step": [0, 50, 95, 100, 100], "kappa": [9, 9, 2, 4, 7.0]}
    )
    assert late(frame, "kappa") == {"a": 3.0, "b": 7.0}


def test_a_rank_that_changes_is_shown_as_a_range() -> None:
    frame = pd.DataFrame({"method": "ns", "rank": [20.0] * 50 + [27.0] * 50})
    assert rank_text(frame, "ns") == "20 to 27"
