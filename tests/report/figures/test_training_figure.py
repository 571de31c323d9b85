"""The parts that figures 1 to 5 share."""

from __future__ import annotations

import pandas as pd
import pytest

from orthocond.report.figures.treatment_figures import FIGURES
from orthocond.report.study import Study


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_the_finding_counts_the_methods_in_the_noise_and_names_the_lowest(
    figure, study: Study
) -> None:
    data = figure.data(study)
    text = figure.finding(data)
    frame = data.frame
    singular = frame["kappa"] > 1 / frame["rank_tol"].median()
    noise = singular.groupby(frame["method"]).all().sum()
    assert f"shaded) for {noise} of {frame['method'].nunique()} methods" in text
    assert "Arrows: orders of magnitude that the paper states." in text


def test_a_single_method_has_no_order(study: Study) -> None:
    (figure, *_) = FIGURES
    data = figure.data(study)
    only = type(data)(data.frame[data.frame["method"] == "svd"], data.provenance)
    assert isinstance(only.frame, pd.DataFrame) and "lowest" not in figure.finding(only)
