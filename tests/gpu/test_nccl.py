"""Two processes with a GPU each, by NCCL: what one process trains, and what a lost one leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from launched import NETWORKS, SETTINGS, process_of_rank

from orthocond.artifacts.run_reader import Run

pytestmark = pytest.mark.gpu

TRAIN = [sys.executable, "-m", "orthocond_cli", "train", *(f"--set={s}" for s in SETTINGS)]
CLOSE = 1e-5  # as in tests/training/test_processes.py: sums that were rounded in another order


def start(
    device: torch.device, *arguments: object, plain: bool = True, **environment: str
) -> subprocess.Popen[str]:
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device.type == "cpu" else {}
    networks = {"PYTHONPATH": str(NETWORKS)} if plain else {}
    return subprocess.Popen(
        [*TRAIN, *map(str, arguments)],
        env=os.environ | hidden | networks | {"OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def complete(device: torch.device, *arguments: object, plain: bool = True) -> None:
    process = start(device, *arguments, plain=plain)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error


def assert_two_are_one(device: torch.device, folder: Path, *arguments: object, plain: bool) -> None:
    complete(device, *arguments, "--out", folder / "one", plain=plain)
    complete(device, *arguments, "--out", folder / "two", "--num-processes", 2, plain=plain)
    runs = [Run(path) for path in sorted((folder / "two").iterdir())]
    assert runs
    for ours in runs:
        expected = Run(folder / "one" / ours.name)
        assert (ours.environment["processes"], ours.environment["device"]) == (2, device.type)
        for table in ("metrics", "conditioning"):
            pd.testing.assert_frame_equal(
                getattr(ours, table), getattr(expected, table), rtol=CLOSE, atol=CLOSE
            )


@pytest.mark.parametrize("task", ["dbn", "gcp"])
def test_two_processes_train_what_one_trains(
    task: str, two_devices: torch.device, tmp_path: Path
) -> None:
    methods = ["--task", task, "--method", "svd", "--method", "nog+ow+olr"]
    assert_two_are_one(two_devices, tmp_path, *methods, plain=True)


def test_synced_batch_norm_is_that_of_the_global_batch(
    half_precision: torch.device, two_devices: torch.device, tmp_path: Path
) -> None:
    """With it the package's own networks are the same on two processes; few steps, for they are
    deep, and what rounding changes grows."""
    settings = ["--method", "svd", "--set", "sync_batch_norm=true", "--set", "epochs=1"]
    settings += ["--set", "data.train_images=64"]  # 4 steps
    assert_two_are_one(two_devices, tmp_path, *settings, plain=False)


def test_a_killed_process_is_named_and_the_run_goes_on(
    two_devices: torch.device, tmp_path: Path
) -> None:
    arguments = ["--method", "svd", "--out", tmp_path / "study"]
    never = str(tmp_path / "go")  # it stands before its second step
    process = start(two_devices, *arguments, "--num-processes", 2, HOLD=never)
    run = Run(tmp_path / "study" / "dbn-leaves-small-svd-s0")
    while not list((run.path / "checkpoint").glob("[0-9]*")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process_of_rank(process.pid, 1), signal.SIGKILL)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1 and "process 1 was ended by SIGKILL" in said
    assert run.has_checkpoint and not run.is_complete
    complete(two_devices, *arguments, "--num-processes", 2)
    run.verify()
