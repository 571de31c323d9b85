"""A grid handed to Slurm ends in the artifacts of a grid that is trained here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cluster.slurm import missing, slurm
from launched import NETWORKS, train_here

from orthocond.artifacts.run_reader import Run
from orthocond.config.sources import presets, resolve
from orthocond.errors import UserError
from orthocond_cli.cluster import FOLDER, directives, queued, run_arguments, submit
from orthocond_cli.main import run

TRAIN = [sys.executable, "-m", "orthocond_cli", "train"]
GRID = ["--method", "svd", "--method", "nog+olr", "--seeds", "0-1"]
SETTINGS = [
    *("--set", "epochs=1", "--set", "batch_size=16", "--set", "checkpoint_every=1"),
    *("--set", "data.train_images=64", "--set", "data.test_images=16", "--set", "data.classes=4"),
    *("--set", "data.size=16", "--set", "recalibration_batches=1", "--set", "lr=0.02"),
]
FILES = ("config.json", "metrics.csv", "conditioning.csv", "summary.json")


@pytest.mark.parametrize("preset", [None, *presets()])
def test_the_arguments_of_a_slurm_task_repeat_all_settings_of_the_grid(preset: str | None) -> None:
    grid = resolve(
        preset,
        flags={"methods": ["svd", "bn" if resolve(preset).config.task == "dbn" else "gap"]},
        settings=["data.name=folder:an odd 'name'", "lr=1e-5", "channels_last=true"],
    )
    for config in grid:
        values = [argument.partition("=")[2] for argument in run_arguments(config)]
        method, seed, *settings = values
        (again,) = resolve(flags={"methods": [method], "seeds": seed}, settings=settings)
        assert again == config


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--cluster", "pbs"], 2, "unknown cluster 'pbs': allowed is slurm"),
        (
            ["--cluster", "slurm", "--dry-run", "--sbatch", "mem=1\n#SBATCH"],
            2,
            "expected key=value",
        ),
        (
            ["--cluster", "slurm", "--dry-run", "--sbatch", "nodes=2"],
            2,
            "use --nodes for the nodes",
        ),
        (
            ["--cluster", "slurm", "--dry-run", "--nodes", "2", "--num-processes", "3"],
            2,
            "batch_size 16 is not divisible by 6 processes",
        ),
        (["--sbatch", "mem=1G"], 2, "--sbatch is for --cluster slurm"),
        (
            ["--cluster", "slurm", "--dry-run", "--nodes", "2", "--rendezvous", "a:1"],
            2,
            "--rendezvous: with --cluster slurm the script chooses it",
        ),
        (["--cluster", "slurm", "--dry-run", "--json"], 2, "--json prints results, and --cluster"),
        (["--cluster", "slurm"], 1, "there is no Slurm on this machine: squeue is missing"),
    ],
)
def test_unsupported_slurm_options_are_refused_in_one_line(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sizes = ("data.train_images=16", "data.test_images=8", "batch_size=16")
    settings = [word for size in sizes for word in ("--set", size)]
    assert run(["train", *settings, "--out", str(tmp_path / "study"), *arguments]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_line_break_in_the_name_of_a_study_becomes_no_line_of_the_script() -> None:
    with pytest.raises(UserError, match=r"^'/runs/a\\ntouch b' has a line break, which a batch"):
        directives(Path("/runs/a\ntouch b"), 1)


def program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)


def test_a_record_of_tasks_that_is_not_whole_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take tasks of an unknown line as unknown: their runs are submitted again."""
    program(tmp_path / "squeue", "echo 7 0", "echo 7 5", "echo 8 0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "7.runs").write_text("a\nb\n")
    (tmp_path / FOLDER / "8.runs").write_bytes(b"")
    assert queued(tmp_path) == {"a"}


def test_a_study_need_not_have_a_name_in_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "sbatch", f"cat > {tmp_path}/script", "echo 7")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    study = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        study.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert submit(f"cd {study}\n", [], study) == "7"
    assert (tmp_path / "script").read_bytes() == os.fsencode(f"cd {study}\n")
    assert (study / FOLDER / "7.runs").read_bytes() == b""


def call(environment: dict[str, str], *command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    if missing():
        pytest.skip(f"there is no Slurm here ({', '.join(missing())}): install slurm-wlm and munge")
    plain = {
        "PYTHONPATH": str(NETWORKS),
        "HOLD": str(tmp_path / "go"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # Slurm's sockets lie here, and the path of one has 107 characters at most: not in tmp_path.
    with TemporaryDirectory(prefix="slurm-") as folder, slurm(Path(folder)) as environment:
        yield environment | plain


@pytest.fixture
def train(
    cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The command, called in this process, which has done its imports."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)

    def said(*arguments: object) -> str:
        assert run(["train", *map(str, arguments)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return said


def wait_for(condition: Callable[[], bool], study: Path, seconds: float = 1200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in study.glob("slurm/*.log"))
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)


def preempt(cluster: dict[str, str], task: str, run: Path) -> None:
    """Signal a task whose run is held after its first step, see it restarted, and let all go."""
    study = run.parent
    wait_for(lambda: Run(run).has_checkpoint, study)
    job = call(cluster, "squeue", "--noheader", "--format=%A", "--jobs", task).strip()
    # To the step: scancel refuses a task by its number while others of its array wait.
    call(cluster, "scancel", "--signal=TERM", f"{job}.0")
    wait_for(lambda: "Restarts=1" in call(cluster, "scontrol", "show", "job", task), study)
    Path(cluster["HOLD"]).touch()


def wait_until_done(cluster: dict[str, str], study: Path) -> None:
    wait_for(lambda: not call(cluster, "squeue", "--noheader"), study)


def assert_same_files(ours: Path, expected: Path) -> None:
    Run(ours).verify()
    for file in FILES:
        assert (ours / file).read_bytes() == (expected / file).read_bytes(), file


def test_a_preempted_grid_on_slurm_gives_the_same_runs_as_a_local_grid(
    cluster: dict[str, str], train: Callable[..., str], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "50% there, 'odd'"
    submit = [*SETTINGS, *GRID, "--out", there, "--cluster", "slurm", "--sbatch", "cpus-per-task=1"]
    assert "#SBATCH --array=0-3\n" in train(*submit, "--dry-run")
    assert not there.exists()
    assert "submitted 4 of 4 runs as array job 1" in train(*submit)
    assert "nothing to submit" in train(*submit)  # while they are queued

    preempt(cluster, "1_1", there / "dbn-leaves-small-svd+nog+olr-s0")
    wait_until_done(cluster, there)
    assert "nothing to submit" in train(*submit)
    logs = sorted(path.name for path in there.glob("slurm/*.log"))
    assert logs == [f"1_{task}.log" for task in range(4)]

    train_here(*SETTINGS, *GRID, "--out", here)
    runs = sorted(path.name for path in here.iterdir())
    assert len(runs) == 4
    for name in runs:
        assert_same_files(there / name, here / name)

    (there / runs[0] / "manifest.json").unlink()
    again = train(*submit, "--dry-run")
    assert "#SBATCH --array=0-0\n" in again and "0) run=(--method=svd+nog+olr --seeds=0" in again


def test_a_preempted_run_on_two_nodes_equals_a_local_run_on_two_processes(
    cluster: dict[str, str], train: Callable[..., str], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    train(*SETTINGS, "--out", there, "--cluster", "slurm", "--nodes", 2)
    path = there / "dbn-leaves-small-svd-s0"
    preempt(cluster, "1_0", path)
    wait_until_done(cluster, there)
    assert Run(path).environment["processes"] == 2
    call(cluster, *TRAIN, *SETTINGS, "--out", here, "--num-processes", 2)
    assert_same_files(path, here / path.name)
