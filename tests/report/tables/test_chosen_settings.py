from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

import pytest
from study_factory import write_run

from orthocond.config.sources import resolve
from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study
from orthocond.report.tables import chosen_settings

SEEDS = {0.1: (0, 1), 0.001: (2, 3)}  # the factory's numbers depend on method and seed


@pytest.fixture
def settings(tmp_path):
    for eps, seeds in SEEDS.items():
        for seed in seeds:
            write_run(tmp_path / f"eps-{eps}", "dbn", "svd", seed, eps=eps, holdout=0.1)
    return tmp_path


def test_the_rows_are_the_values_of_the_one_setting_that_differs(settings):
    study = Study(settings)
    choices = chosen_settings.build(study, "dbn")
    frame = choices.frame
    errors = {
        eps: [run.summary["error"] for run in study.runs if run.config["seed"] in seeds]
        for eps, seeds in SEEDS.items()
    }
    best = min(errors, key=lambda eps: mean(errors[eps]))
    assert list(frame["value"]) == [0.001, 0.1]
    assert set(frame["setting"]) == {"eps"} and set(frame["n"]) == {2}
    assert list(frame["error mean"]) == pytest.approx([mean(errors[v]) for v in frame["value"]])
    assert list(frame["error std"]) == pytest.approx([stdev(errors[v]) for v in frame["value"]])
    assert list(frame[frame["chosen"]]["value"]) == [best]
    assert "10% of the training images of cifar10-jpeg" in choices.provenance.note


def test_diverged_runs_are_not_compared(settings):
    write_run(settings / "eps-1", "dbn", "svd", 0, eps=1.0, holdout=0.1, status="diverged")
    assert 1.0 not in set(chosen_settings.build(Study(settings), "dbn").frame["value"])


def test_methods_whose_runs_differ_in_no_setting_or_in_two_are_left_out(settings):
    write_run(settings / "one", "dbn", "bn", 0)
    write_run(settings / "two", "dbn", "svd+ol", 0, ol_weight=0.1)
    write_run(settings / "two-b", "dbn", "svd+ol", 0, ol_weight=0.2, eps=0.2)
    assert set(chosen_settings.build(Study(settings), "dbn").frame["method"]) == {"SVD"}


def test_runs_without_a_varied_setting_are_an_error(tmp_path):
    write_run(tmp_path, "dbn", "svd", 0)
    with pytest.raises(MissingRuns, match="differ in one setting"):
        chosen_settings.build(Study(tmp_path), "dbn")


def test_settings_of_pooling_are_compared_without_recalibrated_errors(settings):
    for seed, weight in enumerate((0.1, 0.2)):
        write_run(settings / f"ol-{weight}", "gcp", "svd+ol", seed, ol_weight=weight, holdout=0.1)
    frame = chosen_settings.build(Study(settings), "gcp").frame
    assert set(frame["method"]) == {"SVD + OL"} and "recalibrated error mean" not in frame
    assert set(chosen_settings.build(Study(settings), "dbn").frame["method"]) == {"SVD"}


@pytest.mark.parametrize("preset", ["cifar-cpu", "tiny32-cpu", "gcp-cpu"])
def test_presets_have_the_chosen_settings(preset):
    folder = Path(__file__).parents[3] / "runs/settings"
    if not folder.is_dir():
        pytest.skip("the study of the settings is not here")
    config = resolve(preset=preset).config
    frame = chosen_settings.build(Study(folder), config.task).frame
    for row in frame[frame["chosen"]].itertuples():
        assert getattr(config, row.setting) == row.value
