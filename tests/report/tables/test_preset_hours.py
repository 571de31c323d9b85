"""Operations against torchvision's published counts, and hours against runs of a known speed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision
from study_factory import write_run

from orthocond.config.sources import resolve
from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study
from orthocond.report.tables import preset_hours


def test_operations_agree_with_those_that_torchvision_publishes() -> None:
    published = torchvision.models.ResNet18_Weights.DEFAULT.meta["_ops"] * 1e9
    stem = 64 * 3 * 7 * 7 * 112 * 112  # its input needs no gradient
    expected = 2 * (3 * published - stem)
    assert preset_hours.training_operations(torchvision.models.resnet18(), 224) == pytest.approx(
        expected, rel=1e-3
    )


def test_hours_are_the_images_of_a_preset_divided_by_the_measured_speed(tmp_path: Path) -> None:
    write_run(tmp_path, "dbn", "svd", 0)  # the small network at 1,280 images/s
    hours = preset_hours.build(Study(tmp_path))
    table = hours.frame.set_index("preset")
    quick = table.loc["quick"]
    configs = list(resolve(preset="quick"))
    images = configs[0].data.train_images * configs[0].epochs
    assert quick["a run, CPU here (h)"] * 3600 == pytest.approx(images / 1280, rel=1e-3)
    assert quick["all, CPU here (h)"] == pytest.approx(len(configs) * quick["a run, CPU here (h)"])
    assert table["all, CPU here (h)"].isna()["paper-gcp-imagenet"]  # no GCP run tells its speed
    assert "GPU: estimates, not run here" in hours.provenance.note


def test_without_a_run_on_a_cpu_the_error_names_the_command(tmp_path: Path) -> None:
    write_run(tmp_path, "dbn", "svd+nog", 0)
    with pytest.raises(MissingRuns, match=r"orthocond train .*--method svd"):
        preset_hours.build(Study(tmp_path))
