"""One made-up study of both tasks, written once."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from study_factory import write_run, write_study

from orthocond.report.study import Study

matplotlib.use("agg")


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two studies: decorrelated BN with one diverged run, and GCP."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder / "dbn-study")
    write_run(folder / "dbn-study", "dbn", "svd+nog", 7, status="diverged")
    methods = ("svd", "svd+nog+ow", "ns", "gap")
    write_study(folder / "gcp-study", methods, "gcp", data="tiny-imagenet-100")
    return folder


@pytest.fixture(scope="session")
def study(studies: Path) -> Study:
    return Study(studies)
