"""The benchmark that trains, converts and trains on: its stored result, and a short run of it."""

from __future__ import annotations

import json
import os
import runpy
import tarfile
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ARCHIVE = Path(__file__).resolve().parents[2] / "shared/data/cifar10-jpeg.tar.gz"
EACH = 20  # images of a class


def check(result: dict) -> None:
    top1 = result["top1"]
    assert abs(top1["converted"] - top1["before"]) <= 100 / result["data"]["test"]  # one image
    assert result["largest_relative_difference_of_logits"] < 1e-5
    assert set(top1["after one more epoch"]) == {"batch norm", "whitening"}


def test_conversion_changes_no_accuracy_in_the_stored_result() -> None:
    result = json.loads((BENCHMARKS / "results" / "conversion.json").read_text())
    check(result)
    assert result["data"]["name"] == "cifar10-jpeg"
    assert result["top1"]["before"] > 30


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Real images: the set in $ORTHOCOND_DATA, or the first images of each class in shared/data."""
    if "ORTHOCOND_DATA" in os.environ:
        folder = Path(os.environ["ORTHOCOND_DATA"]) / "cifar10-jpeg"
        if not folder.is_dir():
            pytest.skip(f"the image set cifar10-jpeg is missing from {folder.parent}")
        return folder
    if not ARCHIVE.is_file():
        pytest.skip("no real image sets: set ORTHOCOND_DATA to a folder that has them")
    found: Counter[Path] = Counter()
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            found[Path(member.name).parent] += 1
            if found[Path(member.name).parent] <= EACH:
                archive.extract(member, tmp_path, filter="data")
    return tmp_path / "cifar10-jpeg"


def test_it_runs_on_real_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is skipped where the images are missing."""
    few = ["--train-images", "128", "--test-images", "50", "--epochs", "1", "--threads", "1"]
    monkeypatch.syspath_prepend(BENCHMARKS)
    argv = ["conversion.py", "--data", f"folder:{images}", "--out", str(tmp_path), *few]
    monkeypatch.setattr("sys.argv", argv)
    runpy.run_path(str(BENCHMARKS / "conversion.py"), run_name="__main__")
    check(json.loads((tmp_path / "conversion.json").read_text()))
