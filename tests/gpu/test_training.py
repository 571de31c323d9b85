"""Runs on CUDA: the quick preset from end to end, resumed, and in every precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from orthocond.artifacts.run_reader import Run
from orthocond.config.schema import Grid
from orthocond.config.sources import resolve
from orthocond.training.session import Session

pytestmark = pytest.mark.gpu

FILES = ("config.json", "metrics.csv", "conditioning.csv", "summary.json")
METHODS = ["svd", "bn", "ns", "nog+ow+olr"]


@pytest.fixture
def quick(device: torch.device) -> Callable[..., Grid]:
    """The quick preset with other settings; on a CPU with fewer images."""
    fewer = ["data.train_images=256", "data.test_images=40"] if device.type == "cpu" else []
    return lambda *settings, methods=METHODS: resolve(
        preset="quick", flags={"methods": methods}, settings=[*fewer, *settings]
    )


@pytest.fixture
def ordered_sums() -> Iterator[None]:
    """Sums in one order: cuDNN's fastest kernels have none, and two runs differ by rounding."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def train(grid: Grid, study: Path, stop_at: int | None = None) -> list[Run]:
    session = Session(grid, study)

    def report(planned: object, step: int, steps: int, about: str) -> None:
        session.stop.signum = 15 if step == stop_at else session.stop.signum

    statuses = [result.status for result in session.train(report)]
    assert statuses == (["complete"] * len(statuses) if stop_at is None else ["interrupted"])
    return [Run(path) for path in sorted(study.glob("dbn-*"))]


def test_the_quick_preset_trains(
    quick: Callable[..., Grid], device: torch.device, tmp_path: Path
) -> None:
    runs = train(quick(), tmp_path)
    assert len(runs) == len(METHODS)
    for run in runs:
        run.verify()
        assert run.environment["device"] == device.type
        assert run.metrics["train_loss"].is_monotonic_decreasing
        assert run.timings["peak_memory_mb"].gt(0).all()
        assert run.summary["failures"] == 0


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_a_run_that_is_stopped_resumes_to_the_same_bytes(
    quick: Callable[..., Grid], precision: str, ordered_sums: None, tmp_path: Path
) -> None:
    grid = quick(f"precision={precision}", "epochs=1", methods=["nog+ow+olr"])
    (whole,) = train(grid, tmp_path / "whole")
    train(grid, tmp_path / "stopped", stop_at=1)
    (resumed,) = train(grid, tmp_path / "stopped")
    for file in FILES:
        assert (resumed.path / file).read_bytes() == (whole.path / file).read_bytes(), file


def test_float16_trains_and_resumes_with_its_loss_scale(
    half_precision: torch.device, quick: Callable[..., Grid], tmp_path: Path
) -> None:
    grid = quick("precision=float16", methods=["nog+ow+olr"])
    train(grid, tmp_path, stop_at=3)
    (stopped,) = (Run(path) for path in tmp_path.iterdir())
    checkpoint = stopped.checkpoint()
    assert checkpoint is not None and checkpoint.state["scaler"]["scale"] > 0
    (resumed,) = train(grid, tmp_path)
    assert resumed.metrics["train_loss"].is_monotonic_decreasing


def test_the_covariance_pool_trains(quick: Callable[..., Grid], tmp_path: Path) -> None:
    grid = resolve(
        preset="quick-gcp",
        flags={"methods": ["svd", "nog+ow+olr"]},
        settings=["epochs=1", "data.train_images=128", "data.test_images=32", "batch_size=32"],
    )
    for result in Session(grid, tmp_path).train(lambda *_: None):
        assert result.status == "complete"
