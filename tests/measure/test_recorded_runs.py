from __future__ import annotations

import shutil

import pandas as pd
import pytest
import small_run
from study_factory import write_run

from orthocond.artifacts.manifests import CorruptRun
from orthocond.errors import UserError
from orthocond.measure.recorded_runs import measure_run, named_runs
from orthocond.spectral.conditioning import MEASURED


@pytest.fixture
def study(tmp_path):
    for name in ("svd", "bn"):
        write_run(tmp_path / "runs" / "study", "dbn", name, 0)
    small_run.train(tmp_path / "runs" / "study" / small_run.NAME, last=3, finish=False)
    (tmp_path / "runs" / "study" / "figures").mkdir()
    return tmp_path / "runs" / "study"


BN, SVD = "dbn-cifar10-jpeg-small-bn-s0", "dbn-cifar10-jpeg-small-svd-s0"


def test_runs_are_named_one_by_one_by_study_or_by_a_folder_of_studies(study):
    def names(*paths):
        return [run.name for run in named_runs(paths)]

    assert names(study / SVD, study / BN) == [SVD, BN]
    assert names(study) == names(study.parent) == [BN, SVD, small_run.NAME]
    assert names(study / small_run.NAME) == [small_run.NAME]
    assert names(study / SVD, study, study / "figures" / ".." / BN) == [SVD, BN, small_run.NAME]


def test_a_path_that_is_no_run_is_refused(study, tmp_path):
    shutil.copytree(study / SVD, study / "renamed")
    (tmp_path / "file").touch()
    for path, error, message in (
        (study / "absent", UserError, r"^there is no run or study '.*absent'$"),
        (tmp_path / "file", UserError, r"^there is no run or study '.*file'$"),
        (study / "figures", UserError, r"figures' has neither a complete run nor a checkpoint$"),
        (study / "renamed", CorruptRun, r"^run 'renamed' is damaged: manifest.json belongs to run"),
        (study, CorruptRun, r"^run 'renamed' is damaged"),
    ):
        with pytest.raises(error, match=message):
            named_runs([path])


def test_a_checkpoint_is_measured_by_its_run(study):
    folder = study / small_run.NAME / "checkpoint"
    for path in (folder, next(folder.iterdir())):
        with pytest.raises(UserError, match=rf"checkpoints: name the run '.*{small_run.NAME[:9]}"):
            named_runs([path])


def test_a_phase_has_the_median_of_the_medians_and_the_range_of_all(study):
    (run,) = named_runs([study / SVD])
    phases = measure_run(run)["phases"]
    rows = pd.read_csv(run.path / "conditioning.csv")
    assert list(phases) == ["train", "eval"]
    for phase, told in phases.items():
        part = rows[rows["phase"] == phase]
        assert told["records"] == len(part) and told["structural_rank"] == 27
        for field in MEASURED:
            assert told[field]["median"] == part[field].median()
            assert told[field]["min"] == part[f"{field}_min"].min()
            assert told[field]["max"] == part[f"{field}_max"].max()


def test_a_run_that_was_interrupted_is_measured_by_its_checkpoint(study):
    (run,) = named_runs([study / small_run.NAME])
    told = measure_run(run)
    assert told["status"] == "incomplete"
    kappas = [10.0 ** (step / 3) for step in range(2)]  # after 3 steps 2 are in the tables
    assert told["phases"]["train"]["kappa"]["median"] == pytest.approx(sum(kappas) / 2)
