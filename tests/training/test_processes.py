"""Several processes train what one trains, and what a lost one leaves is gone on from.

The commands are real, and so are their launchers; the networks are those of plain_networks, whose
results do not depend on how a batch is shared out, but for the order of sums.
"""

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
from launched import NETWORKS, SETTINGS, process_of_rank, train_here

from orthocond.artifacts.run_reader import Run

BIN = Path(sys.executable).parent
SET = [f"--set={setting}" for setting in SETTINGS]
TRAIN = ["-m", "orthocond_cli", "train", *SET]
TASKS = {
    "dbn": ["--method", "svd", "--method", "nog+ow+olr"],
    "gcp": ["--task", "gcp", "--method", "nog+olr"],
}
LAUNCHERS = {
    "torchrun": [BIN / "torchrun", "--standalone", "--nproc-per-node", "2"],
    # its --cpu would start one process
    "accelerate": [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", "2"],
}
WITHOUT_GPU = {
    "PYTHONPATH": str(NETWORKS),
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
CLOSE = 1e-5  # after 20 steps whose sums were rounded in another order


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        env=os.environ | WITHOUT_GPU | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def complete(*arguments: object, **environment: str) -> str:
    process = command(*arguments, **environment)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return error


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that a single process trains."""
    study = tmp_path_factory.mktemp("one")
    for arguments in TASKS.values():
        train_here(*SET, *arguments, "--out", study)
    return study


def assert_equal_up_to_rounding(run: Run, reference: Run) -> None:
    run.verify()
    for table in ("metrics", "conditioning"):
        ours, expected = getattr(run, table), getattr(reference, table)
        pd.testing.assert_frame_equal(ours, expected, check_exact=False, rtol=CLOSE, atol=CLOSE)
    there, here = reference.checkpoint(), run.checkpoint()
    assert there is not None and here is not None and there.step == here.step == 20
    torch.testing.assert_close(here.tensors, there.tensors, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    ("launcher", "task"),
    [("flag", "dbn"), ("flag", "gcp"), ("torchrun", "dbn"), ("accelerate", "dbn")],
)
def test_two_processes_give_the_results_of_one_process(
    one: Path, tmp_path: Path, launcher: str, task: str
) -> None:
    study, written = tmp_path / "two", tmp_path / "written"
    written.mkdir()
    start = LAUNCHERS.get(launcher, [sys.executable])
    more = ["--num-processes", 2] if launcher == "flag" else []
    complete(*start, *TRAIN, *TASKS[task], "--out", study, *more, WRITTEN=str(written))
    runs = [Run(path) for path in sorted(study.iterdir())]
    assert len(runs) == len([word for word in TASKS[task] if word == "--method"])
    for run in runs:
        assert run.environment["processes"] == 2
        assert_equal_up_to_rounding(run, Run(one / run.name))
    by_rank = [(written / str(rank)).read_text() for rank in (0, 1)]
    assert str(study) in by_rank[0] and str(study) not in by_rank[1]  # one writer


def wait_for_state(process: subprocess.Popen[str], run: Run) -> None:
    """Wait until the first step is saved; $HOLD keeps all processes before the second."""
    while not list((run.path / "checkpoint").glob("[0-9]*")):
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are read from /proc")
@pytest.mark.parametrize(
    ("signum", "rank", "line"),
    [
        (signal.SIGKILL, 1, "process 1 was ended by SIGKILL"),
        (signal.SIGKILL, 0, "process 0 was ended by SIGKILL"),
        (signal.SIGSTOP, 1, "process 1 of 2 is lost (timeout 5 s)"),
    ],
    ids=["killed", "writer-killed", "hung"],
)
def test_a_lost_process_is_named_and_one_process_can_resume_the_run(
    one: Path,
    tmp_path: Path,
    signum: signal.Signals,
    rank: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study, hold = tmp_path / "study", tmp_path / "go"
    svd = ["--method", "svd", "--out", study]
    two = [sys.executable, *TRAIN, *svd, "--num-processes", 2, "--timeout", 5]
    process = command(*two, HOLD=str(hold))
    run = Run(study / "dbn-leaves-small-svd-s0")
    wait_for_state(process, run)
    lost = process_of_rank(process.pid, rank)
    os.kill(lost, signum)
    if signum == signal.SIGSTOP:
        hold.touch()  # the other one waits for it, and the launcher notices nothing
        assert process.stderr is not None
        while line not in (said := process.stderr.readline()):
            assert said
        os.kill(lost, signal.SIGKILL)  # as the launcher does, half a minute later
    else:
        _, said = process.communicate(timeout=600)
        assert line in said and "Traceback" not in said
    assert process.wait(timeout=600) == 1
    assert run.has_checkpoint and not run.is_complete
    capsys.readouterr()
    train_here(*SET, *svd)
    warned = capsys.readouterr().err
    assert "processes is 2 there and 1 here" in warned and "may differ in their last" in warned
    assert_equal_up_to_rounding(Run(run.path), Run(one / run.name))


def test_two_processes_resume_a_run_that_one_began(one: Path, tmp_path: Path) -> None:
    train = [sys.executable, *TRAIN, "--method", "svd", "--out", tmp_path / "study"]
    process = command(*train, HOLD=str(tmp_path / "go"))  # until the signal
    run = Run(tmp_path / "study" / "dbn-leaves-small-svd-s0")
    wait_for_state(process, run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 143
    assert run.has_checkpoint and not run.is_complete
    warned = complete(*train, "--num-processes", 2)
    assert "processes is 1 there and 2 here" in warned and "may differ in their last" in warned
    assert Run(run.path).environment["processes"] == 2
    assert_equal_up_to_rounding(Run(run.path), Run(one / run.name))
