"""Runs that the book lacks, and the commands that make them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest
from study_factory import write_study

from orthocond.report.study import Study


def test_a_study_that_is_missing_by_name_has_the_command_of_its_preset(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd",))

    def of_released(_: Study) -> str:
        return kit.study("as-released-cpu").select("dbn").note

    page = kit.study_text("dbn", of_released).data
    assert "--preset as-released-cpu --data folder:PATH/cifar10-jpeg --out" in page


def test_runs_on_held_out_images_have_the_commands_of_the_text(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(Path(__file__).parents[3] / "runs/README.md", tmp_path / "runs")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("ORTHOCOND_RUNS", "other")
    assert kit.study_choices("dbn").data.count("--out other/settings/") == 2
    assert "--preset gcp-cpu" in kit.study_choices("gcp").data
