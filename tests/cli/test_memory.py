"""Memory that is short meets every command: one line that says what to lower, and exit code 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from study_factory import write_study

from orthocond.artifacts.run_reader import Run
from orthocond_cli.main import run

MODEL = ["measure", "--model", "squeezenet1_1", "--layer", "features.0"]
TIMING = ["measure", "--timing", "--method", "bn"]
TRAIN = [
    *("train", "--method", "bn", "--set", "epochs=2", "--set", "batch_size=8"),
    *("--set", "data.train_images=16", "--set", "data.test_images=8", "--set", "data.classes=2"),
    *("--set", "data.size=8", "--set", "recalibration_batches=1"),
]
LIMITED = """
import os, resource, sys
import torch, orthocond.training.session, orthocond_cli.train
from orthocond_cli.main import run
torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
sys.exit(run(sys.argv[1:]))
"""
"""Run a command that may take 300 MB more than its imports have."""


def raising(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a")


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    assert run(arguments) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("orthocond: out of memory")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("count", [10**13, 10**18, 10**20])
def test_a_batch_too_large_for_memory_names_the_flags(count: int, capsys) -> None:
    remedy = "lower --batch-size, --batches or --size\n"
    assert told([*MODEL, "--batch-size", str(count)], capsys).endswith(remedy)
    assert told([*MODEL, "--batches", str(count)], capsys).endswith(remedy)
    remedy = "lower --batch-size or --size\n"
    assert told([*TIMING, "--batch-size", str(count)], capsys).endswith(remedy)


def test_images_too_large_for_memory_name_the_flags(capsys) -> None:
    remedy = "lower --batch-size or --size\n"
    assert told([*TIMING, "--size", "100000000000"], capsys).endswith(remedy)


@pytest.mark.parametrize("at", ["forward", "to"])
def test_a_network_too_large_for_memory_is_not_reported_as_one_without_images(
    at, monkeypatch, capsys
):
    monkeypatch.setattr(f"torchvision.models.SqueezeNet.{at}", raising)
    line = told([*MODEL, "--size", "32", "--batch-size", "2", "--batches", "1"], capsys)
    assert line == (
        "orthocond: out of memory (2.00 GiB asked for): lower --batch-size, --batches or --size\n"
    )


@pytest.mark.parametrize(
    "at",
    ["torch.Tensor.backward", "torch.optim.SGD.step", "orthocond.training.stepper.cross_entropy"],
)
def test_any_part_of_a_timed_step_may_be_short_of_memory(at, monkeypatch, capsys) -> None:
    monkeypatch.setattr(at, raising)
    line = told([*TIMING, "--size", "8", "--batch-size", "2"], capsys)
    assert line.endswith("lower --batch-size or --size\n")


def test_data_too_large_for_memory_name_their_settings(tmp_path: Path, capsys) -> None:
    study = tmp_path / "study"
    line = told([*TRAIN, "--set", f"data.train_images={10**15}", "--out", str(study)], capsys)
    assert line.endswith("lower data.train_images, data.test_images or data.size (--set)\n")
    assert not study.exists()


@pytest.mark.parametrize("module", ["stepper", "evaluation"])
def test_a_run_too_large_for_memory_names_its_settings_and_keeps_its_state(
    module: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    arguments = [*TRAIN, "--out", str(tmp_path), "--set", "checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(f"orthocond.training.{module}.cross_entropy", raising)
        assert run(arguments) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "orthocond: out of memory (2.00 GiB asked for): lower batch_size or raise accumulate "
        "(--set), with another --out: a run keeps its settings"
    )
    assert run(arguments) == 0  # the lock is free, and what is there is taken up again
    (folder,) = tmp_path.iterdir()
    assert Run(folder).is_complete


def test_a_report_too_large_for_memory_is_reported_in_one_line(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    write_study(tmp_path / "study", ("bn",), seeds=1)
    monkeypatch.setattr("orthocond.report.study.find_runs", raising)
    for arguments in (["table", "overview"], ["plot", "fig2", "--out", str(tmp_path / "out")]):
        line = told([*arguments, "--runs", str(tmp_path / "study")], capsys)
        assert line == "orthocond: out of memory (2.00 GiB asked for)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process is Linux's")
def test_a_refusal_of_the_real_allocator_is_reported_in_one_line(tmp_path: Path) -> None:
    many = ["--set", "batch_size=1024", "--set", "data.train_images=1024", "--set", "data.size=32"]
    arguments = [*TRAIN, *many, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "orthocond: out of memory" in done.stderr.splitlines()[-1]
    assert "lower batch_size or raise accumulate" in done.stderr.splitlines()[-1]
