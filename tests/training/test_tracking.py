"""What TensorBoard shows of a run is its metrics.csv, also after it was interrupted."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from orthocond.artifacts.run_reader import Run
from orthocond.config.sources import resolve
from orthocond.training.session import Session
from orthocond_cli.main import run

GRID = resolve(
    flags={"methods": ["olr"]},
    settings=[
        *("epochs=2", "batch_size=16", "data.train_images=64", "data.test_images=16"),
        *("data.classes=4", "data.size=16", "lr=0.02", "recalibration_batches=1"),
    ],
)
NAME = "dbn-leaves-small-svd+olr-s0"
Shown = dict[str, tuple[list[int], list[float]]]


def shown(study: Path) -> Shown:
    """Name of a metric -> the steps and the values of its points."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(module).EventAccumulator(str(study / "tensorboard" / NAME))
    events.Reload()
    points = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    return {name: ([p.step for p in own], [p.value for p in own]) for name, own in points.items()}


def expected(study: Path) -> Shown:
    metrics = Run(study / NAME).metrics
    finite = {name: metrics[["step", name]][metrics[name].map(math.isfinite)] for name in metrics}
    return {
        n: (part.iloc[:, 0].tolist(), part.iloc[:, 1].tolist())
        for n, part in finite.items()
        if len(part)
    }


def test_each_epoch_is_logged_once_when_it_ends(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def train(last_step: int) -> str:
        session = Session(GRID, tmp_path, tracker="tensorboard")

        def watch(planned: object, step: int, steps: int, about: str) -> None:
            if step == 5:
                assert shown(tmp_path)["eval_top1"][0] == [4]
            if step == last_step:
                session.stop.signum = 15

        (result,) = session.train(watch)
        return result.status

    assert [train(6), train(7), train(99)] == ["interrupted", "interrupted", "complete"]
    points, table = shown(tmp_path), expected(tmp_path)
    assert points.keys() == table.keys() and "eta" in points
    for name, (steps, values) in table.items():
        assert points[name][0] == steps
        assert points[name][1] == pytest.approx(values, rel=2**-24), name  # float32 there


@pytest.mark.parametrize("more", [[], ["--cluster", "slurm"], ["--num-processes", "2"]], ids=str)
def test_a_missing_tracking_package_is_reported_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    study = tmp_path / "study"
    assert run(["train", "--track", "tensorboard", "--out", str(study), *more]) == 2
    error = capsys.readouterr().err
    assert "the package tensorboard is missing: pip install tensorboard" in error
    assert error.count("\n") == 1 and not study.exists()
