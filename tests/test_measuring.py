from __future__ import annotations

import math
import shutil

import pandas as pd
import pytest
import small_run
import torch
from study_factory import write_run
from torch import nn

from orthocond.errors import UserError
from orthocond.manifests import CorruptRun
from orthocond.measuring import by_phase, measure_layer, measure_run, named_runs
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


def test_what_is_no_run_is_said_so(study, tmp_path):
    shutil.copytree(study / SVD, study / "renamed")
    (tmp_path / "file").touch()
    for path, error, message in (
        (study / "absent", UserError, r"^there is no run or study '.*absent'$"),
        (tmp_path / "file", UserError, r"^there is no run or study '.*file'$"),
        (study / "figures", UserError, r"figures' has neither a complete run nor a checkpoint$"),
        (study / "renamed", CorruptRun, r"^run 'renamed' is damaged: manifest.json is of run"),
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


def test_infinite_and_unknown_values_are_kept():
    row = {f"{name}{end}": math.inf for name in MEASURED for end in ("", "_min", "_max")}
    rows = pd.DataFrame([row | {"phase": "eval", "rank_tol": 1e-13, "structural_rank": None}] * 2)
    told = by_phase(rows)["eval"]
    assert told["kappa"] == {"median": math.inf, "min": math.inf, "max": math.inf}
    assert told["structural_rank"] is None and told["rank_tol"] == 1e-13


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(2))


def test_a_layers_covariance_is_numpys():
    model, images = network(), torch.randn(6, 3, 8, 8)
    (record,) = measure_layer(model, "0", [images], "output")
    features = model[0](images).detach().double().movedim(1, 0).flatten(1)
    l = torch.linalg.eigvalsh(torch.cov(features, correction=0))
    assert record.median.kappa == pytest.approx((l.max() / l.min()).item(), rel=1e-9)
    assert record.median.structural_rank == 5 and record.phase == "eval"
    (same,) = measure_layer(model, "1", [images], "input")
    assert same.median.kappa == record.median.kappa


def test_each_image_has_a_covariance_of_its_own():
    model, images = network().double(), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    (record,) = measure_layer(model, "0", [images], per_sample=True)
    alone = [measure_layer(model, "0", [image[None]])[0].median.kappa for image in images]
    assert record.samples == 3
    expected = (min(alone), sorted(alone)[1], max(alone))
    found = (record.min.kappa, record.median.kappa, record.max.kappa)
    assert found == pytest.approx(expected, rel=1e-9)


def test_as_many_batches_as_asked_for_are_taken_and_told():
    told: list[tuple[int, int]] = []
    batches = (torch.randn(2, 3, 8, 8) for _ in range(9))
    records = measure_layer(network(), "0", batches, count=2, report=lambda *p: told.append(p))
    assert len(records) == 2 and told == [(1, 2), (2, 2)] and len(list(batches)) == 7


@pytest.mark.parametrize(
    ("layer", "side", "images", "message"),
    [
        ("3", "output", [torch.zeros(1, 3, 8, 8)], r"unknown layer '3' of Sequential"),
        ("", "output", [torch.zeros(1, 3, 8, 8)], r"named_modules\(\)$"),
        ("0", "outside", [torch.zeros(1, 3, 8, 8)], r"unknown side 'outside': allowed are input"),
        ("0", "output", [], r"^there are no images to measure with$"),
        ("0", "output", [torch.zeros(1, 1, 8, 8)], r"does not take images \(1, 1, 8, 8\): Given g"),
        ("0", "output", [torch.zeros(1, 3, 2, 2)], r"does not take images \(1, 3, 2, 2\): Calcul"),
    ],
)
def test_what_can_not_be_measured_is_one_line(layer, side, images, message):
    with pytest.raises(UserError, match=message) as error:
        measure_layer(network(), layer, images, side)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_never_reached_is_said_so():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(UserError, match=r"^the model's forward does not reach layer 'unused'$"):
        measure_layer(Part(), "unused", [torch.zeros(1, 3, 4, 4)])
