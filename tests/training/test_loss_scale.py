"""Runs under a loss scale, as float16 trains, here with a CPU's scaler and in float32.

The scale is a power of two, so that it changes no bit as long as nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from orthocond.artifacts.run_reader import Run
from orthocond.config.sources import resolve
from orthocond.training import session
from orthocond.training.session import Session

FILES = ("config.json", "metrics.csv", "conditioning.csv", "summary.json")
SETTINGS = [
    *("epochs=1", "batch_size=16", "data.train_images=64", "data.test_images=16", "lr=0.02"),
    *("data.classes=4", "data.size=16", "probe_every=2", "recalibration_batches=1"),
]
START, OTHER = 2.0**16, 2.0**8  # torch's first scale, and one that a run may have come to


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    make = session.make_accelerator

    def make_scaled(precision: str, timeout: float) -> Accelerator:
        accelerator = make(precision, timeout)
        accelerator.scaler = torch.amp.GradScaler("cpu")
        return accelerator

    monkeypatch.setattr(session, "make_accelerator", make_scaled)


def train(
    study: Path, *methods: str, watch: Callable[[Session, int], None] = lambda session, step: None
) -> list[Run]:
    session = Session(resolve(flags={"methods": methods}, settings=SETTINGS), study)
    results = session.train(lambda planned, step, steps, about: watch(session, step))
    return [Run(study / result.name) for result in results]


def scale(run: Run) -> float:
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    return checkpoint.state["scaler"]["scale"]


def to_another_scale(session: Session, step: int) -> None:
    scaler = session.accelerator.scaler
    if step == 1:
        scaler.load_state_dict(scaler.state_dict() | {"scale": OTHER})


def test_a_loss_scale_changes_no_run(scaled: None, tmp_path: Path) -> None:
    (ours,) = train(tmp_path / "ours", "nog+olr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "make_accelerator", lambda *_: Accelerator(cpu=True))
        (plain,) = train(tmp_path / "plain", "nog+olr")
    for file in FILES:
        assert (ours.path / file).read_bytes() == (plain.path / file).read_bytes(), file


def test_each_run_of_a_grid_starts_with_the_initial_loss_scale(
    scaled: None, tmp_path: Path
) -> None:
    scales = []

    def watch(session: Session, step: int) -> None:
        if step == 1:
            scales.append(session.accelerator.scaler.get_scale())
        to_another_scale(session, step)

    runs = train(tmp_path, "svd", "bn", watch=watch)
    assert scales == [START, START]
    assert [scale(run) for run in runs] == [OTHER, OTHER]


def test_a_stopped_run_resumes_with_its_loss_scale(scaled: None, tmp_path: Path) -> None:
    def stop(session: Session, step: int) -> None:
        to_another_scale(session, step)
        session.stop.signum = 15 if step == 2 else 0

    (whole,) = train(tmp_path / "whole", "nog+olr")
    train(tmp_path / "stopped", "nog+olr", watch=stop)
    (resumed,) = train(tmp_path / "stopped", "nog+olr")
    assert scale(resumed) == OTHER
    for file in FILES:
        assert (resumed.path / file).read_bytes() == (whole.path / file).read_bytes(), file
