"""The real command, stopped at random moments and called again: it ends in the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from faults.counting import Count

from orthocond.artifacts import checkpoints
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_search import find_runs

EPOCHS, STEPS = 2, 3  # steps of an epoch
RUNS = ("dbn-leaves-small-svd+nog+olr-s0", "dbn-leaves-small-bn-s0")
SETTINGS = {
    "epochs": EPOCHS,
    "batch_size": 8,
    "lr": 0.02,
    "probe_every": 2,
    "recalibration_batches": 1,
    "checkpoint_every": 1,
    "data.classes": 4,
    "data.train_images": 8 * STEPS,
    "data.test_images": 8,
}
EXIT_CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


def command(study: Path) -> list[str]:
    """``orthocond train`` on a grid of two runs that saves its state after each step."""
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    methods = ["--method", "nog+olr", "--method", "bn"]
    return [
        sys.executable,
        "-m",
        "orthocond_cli",
        "train",
        *methods,
        *settings,
        "--out",
        str(study),
    ]


def _start(study: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(study),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> str:
    """What the command said on its standard error, if it failed."""
    said = process.communicate(timeout=600)[1]
    return said if process.returncode else ""


def _sums(study: Path) -> dict[str, str]:
    """SHA-256 of all that a run must end in: tables, figures, weights and the optimizer's state."""
    sums = {}
    for name in RUNS:
        path = study / name
        (checkpoint,) = checkpoints.folders(path / "checkpoint")
        files = [path / n for n in ("config.json", "metrics.csv", "conditioning.csv")]
        for file in (*files, path / "summary.json", checkpoint / checkpoints.TENSORS):
            sums[f"{name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return sums


def _progress(study: Path) -> int:
    """Steps whose state is saved, over both runs."""
    newest = [checkpoints.folders(study / name / "checkpoint")[:1] for name in RUNS]
    return sum(int(path.name.partition("-")[0]) for (path,) in filter(None, newest))


def _parts(study: Path) -> list[Path]:
    """Checkpoints that are being written, or never were to the end."""
    return list(study.glob("*/checkpoint/.*.part"))


def _stop(study: Path, signum: signal.Signals, after: int, writing: bool, pause: float) -> str:
    """Start the command and send it a signal: what it said, or what was wrong with its end.

    Args:
        study: of the command.
        signum: what is sent.
        after: the steps that must be saved first.
        writing: then wait until the next checkpoint is being written.
        pause: then wait for so many seconds.
    """
    process = _start(study)
    while process.poll() is None and _progress(study) < after:
        time.sleep(0.002)
    while writing and process.poll() is None and not _parts(study):
        time.sleep(0.0005)
    time.sleep(0 if writing else pause)
    process.send_signal(signum)
    said = _end(process)
    if process.returncode != EXIT_CODES[signum]:
        return f"exit {process.returncode}: {said[-300:]}"
    return "a traceback" if "Traceback" in said else ""


def stopped(folder: Path, signum: signal.Signals, times: int, seed: int = 0) -> Count:
    """Stop the command at random moments, every second time while it writes a checkpoint."""
    count = Count(f"{signum.name}, then the same command again: the same bytes by SHA-256")
    reference = folder / "reference"
    said = _end(_start(reference))
    assert not said, said
    expected, rng = _sums(reference), random.Random(seed)
    for i in range(times):
        study = folder / f"{signum.name}-{i}"
        # Before the first step there is no state to save, and after the last nothing to stop.
        after = rng.randrange(signum != signal.SIGKILL, len(RUNS) * EPOCHS * STEPS - 1)
        broken = _stop(study, signum, after, i % 2 == 1, rng.uniform(0, 0.1))
        broken = broken or _state(study, signum, count)
        if not broken:
            broken = _end(_start(study)) or ("" if _sums(study) == expected else "other bytes")
        count.add(f"after {after} steps", broken or None)
    return count


def _state(study: Path, signum: signal.Signals, count: Count) -> str:
    """How the state is not saved although the command had time to."""
    if _parts(study):
        count.note("left a checkpoint half-written")
    count.note(f"stopped in run {1 + len(find_runs(study))} of {len(RUNS)}")
    if signum == signal.SIGKILL:
        return ""
    begun = [Run(study / name) for name in RUNS if (study / name).exists()]
    return "" if all(run.is_complete or run.has_checkpoint for run in begun) else "no state"
