from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pytest

from orthocond.artifacts.run_reader import Run
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
        assert own[f"{column}_low"].to_dict() == pytest.approx(
            {epoch: min(values) for epoch, values in _by_epoch(runs, column).items()}
        )
    with theme():
        figure = recalibration.FIGURE.draw(data)
        figure.draw_without_rendering()
    assert "points after epoch" in recalibration.FIGURE.alt(data)
    assert len(figure.axes) == frame["method"].nunique()
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["moving averages", "re-estimated statistics"]
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    plt.close(figure)


def test_epochs_without_an_evaluation_leave_no_gap_in_the_lines(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = study.select("dbn", ["svd"]).runs["svd"][0].metrics.copy()
    metrics.loc[metrics["epoch"] % 2 == 1, list(recalibration.STATISTICS)] = float("nan")
    monkeypatch.setattr(Run, "metrics", metrics)
    data = recalibration.FIGURE.data(study)
    assert set(data.frame["epoch"]) == {2, 4} and data.frame.notna().all(axis=None)
    worst = recalibration.gaps(data.frame)["largest"].max()
    assert f"at most {worst:.0f} points" in recalibration.FIGURE.finding(data)


def _by_epoch(runs: Sequence[Run], column: str) -> dict[int, list[float]]:
    values: dict[int, list[float]] = {}
    for run in runs:
        for epoch, value in run.metrics.set_index("epoch")[column].items():
            values.setdefault(int(epoch), []).append(value)
    return values
