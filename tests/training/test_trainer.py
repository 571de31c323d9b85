import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import (
    COLUMNS_OF,
    CONDITIONING,
    METRICS,
    TIMINGS,
    to_csv,
    to_frame,
)
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_writer import RunWriter
from orthocond.config.schema import Config, Grid
from orthocond.config.sources import resolve
from orthocond.data.memory import InMemoryData
from orthocond.errors import UserError
from orthocond.training.session import Result, Session
from orthocond.training.stepper import Stepper, learning_rate
from orthocond.training.trainer import Trainer

TINY = [
    "epochs=2",
    "batch_size=16",
    "data.train_images=64",
    "data.test_images=40",
    "data.classes=4",
    "data.size=16",
    "lr=0.02",
    "probe_every=2",
    "recalibration_batches=2",
    "checkpoint_every=3",
]
FILES = ("config.json", "metrics.csv", "conditioning.csv", "summary.json")


def tiny(*methods: str, settings: tuple[str, ...] = ()) -> Grid:
    return resolve(flags={"methods": methods}, settings=[*TINY, *settings])


def train(
    grid: Grid, study: Path, watch: Callable[[Session, int], None] = lambda session, step: None
) -> list[Result]:
    session = Session(grid, study)
    return list(session.train(lambda planned, step, steps, about: watch(session, step)))


def content(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in FILES}


def test_the_learning_rate_warms_up_and_steps_down() -> None:
    config = Config(lr=0.1, warmup_epochs=2, lr_milestones=(3, 5), lr_decay=0.1)
    rates = [learning_rate(config, epoch) for epoch in (0, 1, 2, 2.9, 3, 5)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.01, 0.001])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("uninterrupted")
    (result,) = train(tiny("nog+ow+olr"), study)
    assert result.status == "complete"
    return study / result.name


def test_a_run_has_the_documented_columns_and_summary(uninterrupted: Path) -> None:
    run = Run(uninterrupted)
    assert tuple(run.metrics.columns) == METRICS
    assert tuple(run.timings.columns) == TIMINGS
    assert tuple(run.conditioning.columns) == CONDITIONING
    assert run.metrics["epoch"].tolist() == [1, 2]
    assert run.metrics["step"].tolist() == [4, 8]
    assert run.metrics[["eval_top1", "recalibrated_top1", "eta", "sv_max"]].notna().all(axis=None)
    trained = run.conditioning[run.conditioning["phase"] == "train"]
    assert trained["step"].tolist() == [0, 2, 4, 6]
    assert set(run.conditioning["phase"]) == {"train", "eval"}
    assert set(run.conditioning["structural_rank"]) == {64}
    assert set(run.conditioning["common_rank"]) == {27}
    assert run.conditioning["kappa_common"].ge(1).all()
    assert run.metrics["train_eval_top1"].notna().tolist() == [False, True]
    assert run.summary["top1"] == run.metrics["eval_top1"].iloc[-1]
    assert run.summary["status"] == "complete" and run.summary["failures"] == 0
    assert str(uninterrupted.parent) not in (uninterrupted / "config.json").read_text()


def test_the_epochs_between_evaluations_have_blank_columns_and_train_the_same(
    uninterrupted: Path, tmp_path: Path
) -> None:
    (result,) = train(tiny("nog+ow+olr", settings=("eval_every=2",)), tmp_path)
    ours, expected = Run(tmp_path / result.name).metrics, Run(uninterrupted).metrics
    pd.testing.assert_series_equal(ours.iloc[1], expected.iloc[1])
    assert ours.filter(regex="^(eval|recalibrated|train_eval)_").iloc[0].isna().all()
    assert ours["train_loss"].equals(expected["train_loss"])


def test_an_averaged_root_changes_the_evaluation_with_moving_averages_only(
    uninterrupted: Path, tmp_path: Path
) -> None:
    (result,) = train(tiny("nog+ow+olr", settings=("running=root",)), tmp_path)
    ours, expected = Run(tmp_path / result.name), Run(uninterrupted)
    assert ours.settings["running"] == "root" and expected.settings["running"] == "covariance"
    assert ours.metrics["train_loss"].equals(expected.metrics["train_loss"])
    assert not ours.metrics["eval_loss"].equals(expected.metrics["eval_loss"])
    recalibrated = [run.metrics["recalibrated_loss"].to_numpy() for run in (ours, expected)]
    assert recalibrated[0] == pytest.approx(recalibrated[1], rel=1e-4)


def test_the_training_images_are_evaluated_as_the_test_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images that are the training images have the same figures: one network in one mode."""
    batches = InMemoryData.eval_batches
    monkeypatch.setattr(
        InMemoryData, "eval_batches", lambda *args, **others: batches(*args, training=True)
    )
    for grid in (tiny("svd"), tiny("svd", settings=("task=gcp",))):
        (result,) = train(grid, tmp_path)
        last = Run(tmp_path / result.name).metrics.iloc[-1]
        mode = "recalibrated" if grid.config.task == "dbn" else "eval"
        for figure in ("loss", "top1", "top5"):
            assert last[f"train_eval_{figure}"] == last[f"{mode}_{figure}"]
        assert grid.config.task == "gcp" or last["train_eval_loss"] != last["eval_loss"]


@pytest.mark.parametrize("moment", [1, 3, 4, 6, 8])
def test_a_run_stopped_at_any_step_resumes_to_the_same_bytes(
    uninterrupted: Path, tmp_path: Path, moment: int
) -> None:
    def stop(session: Session, step: int) -> None:
        if step == moment:
            session.stop.signum = 15

    grid = tiny("nog+ow+olr")
    (stopped,) = train(grid, tmp_path, stop)
    assert stopped.status == "interrupted"
    assert not Run(tmp_path / stopped.name).is_complete
    (resumed,) = train(grid, tmp_path)
    assert resumed.status == "complete"
    assert content(tmp_path / resumed.name) == content(uninterrupted)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_trained_to_a_step_has_the_first_rows_of_the_whole_run(
    uninterrupted: Path, tmp_path: Path, steps: int
) -> None:
    session = Session(tiny("nog+ow+olr"), tmp_path)
    saved: list[Checkpoint] = []
    trainer = Trainer(next(iter(session.grid)), session.data, session.accelerator, session.stop)
    trainer.run(saved.append, steps)
    assert trainer.step == saved[-1].step == steps
    expected = Run(uninterrupted)
    for table, whole in (("metrics", expected.metrics), ("conditioning", expected.conditioning)):
        rows = to_frame(COLUMNS_OF[table], to_csv(COLUMNS_OF[table], trainer.tables[table]))
        pd.testing.assert_frame_equal(rows, whole.iloc[: len(rows)])
    assert len(trainer.tables["metrics"]) == steps // 4
    trainer.run(saved.append, steps)  # it is there already
    assert trainer.step == steps and saved[-1].tables["metrics"] == trainer.tables["metrics"]


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(
    uninterrupted: Path, tmp_path: Path
) -> None:
    grid = tiny("nog+ow+olr").model_copy(update={"seeds": "0-1"})
    first, second = train(grid, tmp_path)
    assert content(tmp_path / first.name) == content(uninterrupted)
    metrics = tmp_path / second.name / "metrics.csv"
    assert metrics.read_bytes() != (uninterrupted / "metrics.csv").read_bytes()


def test_the_images_of_a_run_are_shuffled_by_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, drawn = InMemoryData.train_batches, []

    def train_batches(data: InMemoryData, epoch: int, seed: int, *others: Any, **more: Any) -> Any:
        drawn.append((epoch, seed))
        return original(data, epoch, seed, *others, **more)

    monkeypatch.setattr(InMemoryData, "train_batches", train_batches)
    train(tiny("bn").model_copy(update={"seeds": "3,5"}), tmp_path)
    assert drawn == [(0, 3), (1, 3), (0, 5), (1, 5)]


def test_a_complete_run_is_skipped(uninterrupted: Path) -> None:
    before = content(uninterrupted)
    steps: list[int] = []
    (result,) = train(tiny("nog+ow+olr"), uninterrupted.parent, lambda _, step: steps.append(step))
    assert (result.status, steps) == ("complete", [])
    assert content(uninterrupted) == before


def test_another_configuration_is_refused_key_by_key(uninterrupted: Path) -> None:
    grid = tiny("nog+ow+olr", settings=("lr=0.03", "data.test_images=32"))
    with pytest.raises(UserError, match=r"data\.test_images is 40 there and 32 here.*lr is 0\.02"):
        train(grid, uninterrupted.parent)


def test_a_diverged_run_is_kept_and_the_grid_continues(tmp_path: Path) -> None:
    original = torch.nn.utils.get_total_norm
    calls = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.utils,
            "get_total_norm",
            lambda g: torch.tensor(torch.nan) if next(calls) == 5 else original(g),
        )
        first, second = train(tiny("svd", "bn"), tmp_path)
    assert (first.status, second.status) == ("diverged", "complete")
    run = Run(tmp_path / first.name)
    assert run.is_complete and run.summary["steps"] == 5 and run.summary["epochs"] == 1
    checkpoint = run.checkpoint()
    assert checkpoint is not None and checkpoint.step == 5
    assert all(t.isfinite().all() for t in checkpoint.tensors.values())
    again, _ = train(tiny("svd", "bn"), tmp_path)
    assert again.status == "diverged"


def poison(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Let a training step see images that are NaN."""
    original = Stepper.take_step

    def step(stepper: Stepper, images: Tensor, labels: Tensor) -> None:
        factor = torch.nan if stepper.step == moment else 1.0
        original(stepper, images * factor, labels)

    patch.setattr(Stepper, "take_step", step)


@pytest.mark.parametrize("moment", [0, 4, 5])
def test_the_last_failure_of_a_diverged_run_is_counted_once_even_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    poison(monkeypatch, moment)
    (whole,) = train(tiny("svd"), tmp_path / "whole")
    assert whole.status == "diverged" and whole.summary is not None
    assert (whole.summary["failures"], whole.summary["unrecovered"]) == (1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "finish", lambda *_: 1 / 0)  # between the last save and the end
        with pytest.raises(ZeroDivisionError):
            train(tiny("svd"), tmp_path / "killed")
    (resumed,) = train(tiny("svd"), tmp_path / "killed")
    assert content(tmp_path / "killed" / resumed.name) == content(tmp_path / "whole" / whole.name)


def test_a_run_that_diverged_in_an_epochs_loss_stays_diverged_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Stepper.take_step

    def step(stepper: Stepper, images: Tensor, labels: Tensor) -> None:
        original(stepper, images, labels)
        stepper.sums["loss"] = math.nan  # as of a step that the loss scaler skips

    monkeypatch.setattr(Stepper, "take_step", step)
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "finish", lambda *_: 1 / 0)  # between the last save and the end
        with pytest.raises(ZeroDivisionError):
            train(tiny("bn", settings=("epochs=1",)), tmp_path)
    (resumed,) = train(tiny("bn", settings=("epochs=1",)), tmp_path)
    assert resumed.status == "diverged"


def test_a_step_that_the_scaler_skips_counts_no_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etas: list[float] = []
    original = Stepper.take_step

    def step(stepper: Stepper, images: Tensor, labels: Tensor) -> None:
        weight = stepper.model.get_parameter("fc.weight")
        before = weight.detach().clone()
        factor = torch.inf if stepper.step == 2 else 1.0
        hook = weight.register_hook(lambda gradient: gradient * factor)
        original(stepper, images, labels)
        hook.remove()
        if not torch.equal(weight, before):
            assert stepper.treated.last is not None and stepper.treated.last.eta is not None
            etas.append(stepper.treated.last.eta)

    monkeypatch.setattr(Stepper, "take_step", step)
    session = Session(tiny("olr", settings=("epochs=1",)), tmp_path)
    session.accelerator.scaler = torch.amp.GradScaler("cpu")  # as float16 has it on a GPU
    (result,) = session.train(lambda *_: None)
    assert result.status == "complete" and len(etas) == 3
    (eta,) = Run(tmp_path / result.name).metrics["eta"]
    assert eta == pytest.approx(sum(etas) / 3, rel=1e-8)


KINDS = ["svd", "ns", "bn", "sn", "ol", "ow-stiefel", "ow-conv", "olr-exact", "polargrad+muon"]


@pytest.mark.parametrize("method", KINDS)
def test_every_kind_of_method_trains(tmp_path: Path, method: str) -> None:
    (result,) = train(tiny(method, settings=("epochs=1",)), tmp_path)
    assert result.status == "complete"


@pytest.mark.parametrize(
    "settings",
    [("accumulate=2",), ("precision=bfloat16", "channels_last=true"), ("precision=float64",)],
    ids=" ".join,
)
def test_precisions_and_accumulation_train(tmp_path: Path, settings: tuple[str, ...]) -> None:
    (result,) = train(tiny("nog", settings=("epochs=1", *settings)), tmp_path)
    assert result.status == "complete"


def test_covariance_pooling_trains_and_has_no_recalibrated_results(tmp_path: Path) -> None:
    settings = ("task=gcp", "epochs=1", "data.size=64", "data.train_images=32")
    methods = ("gap", "ns", "nog+ow+olr")
    for result in train(tiny(*methods, settings=settings), tmp_path):
        assert result.status == "complete" and result.summary is not None
        assert result.summary["recalibrated_top1"] is None
        conditioning = Run(tmp_path / result.name).conditioning
        assert conditioning["samples"].iloc[0] == 16
        assert set(conditioning["structural_rank"]) == {63}  # 8x8 positions, centred


def test_a_run_that_fails_in_its_first_step_leaves_no_settings(tmp_path: Path) -> None:
    one_value = ("batch_size=4", "accumulate=4", "data.size=8")
    words = r"batches of shape \(1, 3, 8, 8\): Expected more than 1 value per .*raise batch_size"
    with pytest.raises(UserError, match=words):
        train(tiny("bn", settings=one_value), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not list(folder.iterdir())
    (result,) = train(tiny("bn", settings=("batch_size=16",)), tmp_path)
    assert result.status == "complete" and Run(folder).summary["train_images"] == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("batch_size=128",), "batch_size 128 is larger than the 64 training images of leaves"),
        (("groups=5",), "64 features can't be split into 5 equal groups"),
        (("accumulate=3",), "is not divisible by 1 processes x 3 micro-batches"),
        (("precision=float16",), "precision float16 needs a GPU"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_in_one_line(
    tmp_path: Path, settings: tuple[str, ...], words: str
) -> None:
    if "float16" in settings[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=words):
        train(tiny("svd", settings=settings), tmp_path)
    assert not list(tmp_path.iterdir())  # or the command put right would meet another configuration
