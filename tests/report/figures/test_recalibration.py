from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from orthocond.report.figures import recalibration
from orthocond.report.study import Study
from orthocond.report.style import theme


def test_the_lines_are_means_over_seeds_of_both_accuracies(study: Study) -> None:
    runs = study.select("dbn", ["svd"]).runs["svd"]
    data = recalibration.FIGURE.data(study)
    frame = data.frame
    own = frame[frame["method"] == "svd"].set_index("epoch")
    for column in recalibration.STATISTICS:
        expected = sum(run.metrics.set_index("epoch")[column] for run in runs) / len(runs)
        assert own[column].to_dict() == pytest.approx(expected.to_dict())
    with theme():
        figure = recalibration.FIGURE.draw(data)
        assert "points after epoch" in recalibration.FIGURE.alt(data)
        assert len(figure.axes) == frame["method"].nunique()
        plt.close(figure)
