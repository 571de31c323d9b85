"""What a grid says of the runs that are there already, without training any."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import small_run
import torch

from orthocond.artifacts import checkpoints
from orthocond.artifacts.run_writer import RunWriter
from orthocond.config.sources import resolve
from orthocond.data import load_data
from orthocond.errors import UserError
from orthocond.training.accelerator import make_accelerator
from orthocond.training.session import Session, plan, resolved, run_folder


def test_a_complete_run_with_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path) -> None:
    grid = resolve(settings=["data.train_images=10", "data.test_images=10", "batch_size=10"])
    data = load_data(**grid.config.data.model_dump())
    with RunWriter(run_folder(tmp_path, grid.config, data)) as writer:
        writer.begin(resolved(grid.config, data), small_run.ENVIRONMENT)
        parts = (small_run.tensors(1), small_run.state(1), small_run.tables(1))
        writer.save(checkpoints.Checkpoint(1, *parts))
        writer.finish(small_run.SUMMARY, small_run.tables(1))
    (checkpoint,) = checkpoints.folders(writer.path / "checkpoint")
    with (checkpoint / checkpoints.TENSORS).open("ab") as file:
        file.write(b"\0")
    with pytest.warns(UserWarning, match=f"checkpoint/1/{checkpoints.TENSORS} .* are intact"):
        (planned,) = plan(grid, tmp_path, data, processes=1)
    assert planned.action == "skip"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model=resnet99"], "unknown model for dbn 'resnet99'"),
        (["model=timm:resnet18"], "unknown model for dbn 'timm:resnet18': allowed are small, "),
        (["groups=5"], "64 features can't be split into 5 equal groups"),
        (["batch_size=11"], "batch_size 11 is larger than the 10 training images of leaves"),
        (["batch_size=9"], "batch_size 9 is not divisible by 2 processes x 1 micro-batches"),
        (["accumulate=3"], "batch_size 10 is not divisible by 2 processes x 3 micro-batches"),
    ],
)
def test_a_run_that_cannot_be_built_is_refused_before_any_run_is_trained_or_submitted(
    settings: list[str], words: str, tmp_path: Path
) -> None:
    sizes = ["data.train_images=10", "data.test_images=10", "batch_size=10"]
    grid = resolve(flags={"methods": ["bn", "svd"]}, settings=[*sizes, *settings])
    with pytest.raises(UserError, match=words):
        plan(grid, tmp_path, load_data(**grid.config.data.model_dump()), processes=2)


def test_runs_that_others_train_leave_no_network_in_memory(tmp_path: Path) -> None:
    sizes = ["data.train_images=10", "data.test_images=10", "batch_size=10", "epochs=1"]
    session = Session(resolve(flags={"methods": ["bn", "svd"]}, settings=sizes), tmp_path)
    with ExitStack() as stack:
        for planned in session.planned():
            stack.enter_context(RunWriter(planned.folder))
        assert [result.status for result in session.train(lambda *_: None)] == ["locked"] * 2
    assert not session.accelerator._models and not session.accelerator._optimizers


@pytest.mark.parametrize("place", ["file", "file/study", "file/a/study", "link"])
def test_a_study_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    sizes = ["data.train_images=10", "data.test_images=10", "batch_size=10"]
    grid = resolve(settings=sizes)
    data = load_data(**grid.config.data.model_dump())
    with pytest.raises(UserError, match=r"cannot write '.*': '.*' is no folder; change --out"):
        plan(grid, tmp_path / place, data, processes=1)
    assert plan(grid, tmp_path / "new" / "study", data, processes=1)[0].action == "train"


@pytest.mark.parametrize("name", ["avx512_f", "fp16_arith"])
def test_emulated_bfloat16_is_announced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True})
    with pytest.warns(UserWarning, match="emulates bfloat16.*precision=float32"):
        make_accelerator("bfloat16")


@pytest.mark.parametrize(
    ("precision", "capabilities"),
    [
        ("float32", {"avx2": True}),
        ("bfloat16", {"amx_bf16": True}),
        ("bfloat16", {"avx512_bf16": True}),
        ("bfloat16", {"bf16": True}),
        ("bfloat16", {}),  # this torch can't tell
    ],
)
@pytest.mark.filterwarnings("error")
def test_no_other_arithmetic_is_announced(
    monkeypatch: pytest.MonkeyPatch, precision: str, capabilities: dict[str, bool]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    make_accelerator(precision)
