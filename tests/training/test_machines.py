"""Several machines on one study: as one group of processes, or run by run through a shared folder.

The machines are commands that know nothing of each other but a port or a folder.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch
from launched import NETWORKS, train_here

from orthocond.artifacts.run_reader import Run
from orthocond_cli.main import run

SETTINGS = [
    *("epochs=2", "batch_size=16", "data.train_images=64", "data.test_images=16", "lr=0.02"),
    *("data.classes=4", "data.size=16", "recalibration_batches=1", "precision=float64"),
]
SET = [f"--set={setting}" for setting in SETTINGS]
TRAIN = ["train", *SET]
ENVIRONMENT = {"PYTHONPATH": str(NETWORKS), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
CLOSE = 1e-5  # of sums that are rounded in another order, as in test_processes.py


def on_each_machine(machines: int, *arguments: object) -> list[str]:
    """What a command says that is started on each machine at once."""
    command = [sys.executable, "-m", "orthocond_cli", *map(str, arguments)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(machines)
    ]
    said = []
    for process in started:
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        said.append(out)
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that one machine trains."""
    study = tmp_path_factory.mktemp("alone")
    train_here(*SET, "--method", "svd", "--method", "nog", "--out", study)
    return study


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_launchers_on_several_machines_give_the_results_of_one_process(
    alone: Path, tmp_path: Path
) -> None:
    meet = ["--nodes", 2, "--rendezvous", f"localhost:{free_port()}"]
    on_each_machine(2, *TRAIN, "--method", "svd", "--out", tmp_path, *meet)
    (ours,) = (Run(path) for path in tmp_path.iterdir())
    assert ours.environment["processes"] == 2
    ours.verify()
    expected = Run(alone / ours.name)
    for table in ("metrics", "conditioning"):
        pd.testing.assert_frame_equal(
            getattr(ours, table), getattr(expected, table), check_exact=False, rtol=CLOSE
        )
    one, two = expected.checkpoint(), ours.checkpoint()
    assert one is not None and two is not None
    torch.testing.assert_close(two.tensors, one.tensors, rtol=CLOSE, atol=CLOSE)


def test_commands_on_one_folder_share_its_runs(alone: Path, tmp_path: Path) -> None:
    said = on_each_machine(2, *TRAIN, "--method", "svd", "--method", "nog", "--out", tmp_path)
    ended = {tuple(line.split()[:2]) for text in said for line in text.splitlines()}
    for path in sorted(alone.iterdir()):
        shared = Run(tmp_path / path.name)
        shared.verify()
        assert (path.name, "complete") in ended
        for file in ("config.json", "metrics.csv", "conditioning.csv", "summary.json"):
            assert (shared.path / file).read_bytes() == (path / file).read_bytes()
        assert not (shared.path / ".lock").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--nodes", "2"], 2, "--nodes goes with --cluster slurm, or with the --rendezvous"),
        (["--rendezvous", "host:1"], 2, "--nodes goes with --cluster slurm"),
        (["--nodes", "2", "--rendezvous", "host"], 2, "'host': expected HOST:PORT"),
        (["--nodes", "2", "--rendezvous", "host:0"], 2, "with a port from 1 to 65535"),
        (["--nodes", "2", "--rendezvous", "host:65536"], 2, "with a port from 1 to 65535"),
        (["--nodes", "0"], 2, "--nodes"),
    ],
)
def test_machines_that_cannot_connect_are_reported_in_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--out", str(tmp_path / "study"), *arguments]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("local", [None, "3"])
def test_a_number_of_processes_that_a_launcher_did_not_start_is_refused(
    local: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Refuse what was one process without a word: WORLD_SIZE may be left from elsewhere."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert run(["train", "--num-processes", "2", "--out", str(tmp_path / "study")]) == 2
    error = capsys.readouterr().err
    assert f"WORLD_SIZE={local or 1} is in the environment" in error and error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_machine_that_never_connects_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    meet = ["--nodes", "2", "--rendezvous", f"localhost:{free_port()}", "--timeout", "1"]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or the launcher sets it, for all tests after this
    assert run(["train", "--out", str(tmp_path / "study"), *meet]) == 1
    error = capfd.readouterr().err
    assert "2 machines did not meet at localhost:" in error and error.count("\n") == 1
