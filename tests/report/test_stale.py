from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from orthocond.report import stale
from orthocond.report.study import Study
from orthocond.report.style import theme


def test_the_lines_are_means_over_seeds_of_both_accuracies(study: Study) -> None:
    runs = study.select("dbn", ["svd"]).runs["svd"]
    frame = stale.data(study)
    own = frame[frame["method"] == "svd"].set_index("epoch")
    for column in stale.KINDS:
        expected = sum(run.metrics.set_index("epoch")[column] for run in runs) / len(runs)
        assert own[column].to_dict() == pytest.approx(expected.to_dict())
    with theme():
        figure = stale.draw(study)
        assert len(figure.axes) == frame["method"].nunique()
        plt.close(figure)
