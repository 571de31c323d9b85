"""Several processes on one study: each run is trained once, nobody waits, nothing is torn."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import small_run
from faults.counting import Count

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_writer import RunLocked

TESTS = Path(__file__).parents[1]
CODE = """
import sys
from pathlib import Path
from faults.writers import work
work(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
"""


def work(study: Path, runs: int, pause: float) -> None:
    """Train each run of a study that is neither complete nor another's; say which, and leave."""
    for i in range(runs):
        path = study / f"run-{i}"
        if not Run(path).is_complete:
            try:
                small_run.train(path, pause=pause)
                print(path.name, flush=True)
            except RunLocked:
                pass
            except ValueError as error:
                if "is complete" not in str(error):  # another was done between our two looks
                    raise


def _start(study: Path, runs: int, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(study), str(runs), str(pause)],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": str(TESTS / "helpers")},
        stdout=subprocess.PIPE,
        text=True,
    )


def _end(workers: list[subprocess.Popen[str]]) -> list[str]:
    """The runs that the workers trained, all of them."""
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    return [name for text in said for name in text.split()]


def together(folder: Path, rounds: int = 1, workers: int = 2, runs: int = 6) -> Count:
    """Several workers on one study, started at once."""
    count = Count("processes on one study: each run is trained once, by one of them")
    end = _reference(folder)
    for i in range(rounds):
        study = folder / f"together-{i}"
        trained = _end([_start(study, runs, 0.02) for _ in range(workers)])
        for name in (f"run-{r}" for r in range(runs)):
            times = trained.count(name)
            broken = None if times == 1 else f"trained {times} times"
            count.add(f"{name}, round {i}", broken or _torn(study / name, end))
    return count


def one_killed(folder: Path, rounds: int = 1, workers: int = 2, runs: int = 4) -> Count:
    """One of them is killed at a random moment; a third comes and finishes."""
    count = Count("a worker is killed: its lock does not hold, and another finishes its run")
    end, rng = _reference(folder), random.Random(0)
    for i in range(rounds):
        study = folder / f"killed-{i}"
        first, *others = [_start(study, runs, 0.05) for _ in range(workers)]
        while not list(study.glob("run-*/checkpoint/*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        first.kill()
        _end([first, *others])
        _end([_start(study, runs, 0.0)])
        for name in (f"run-{r}" for r in range(runs)):
            count.add(f"{name}, round {i}", _torn(study / name, end))
    return count


def _reference(folder: Path) -> dict[str, dict[str, str]]:
    """What each run must end in (its manifest holds its name, so that all differ)."""
    return {
        f"run-{i}": small_run.listing(small_run.train(folder / "reference" / f"run-{i}").path)
        for i in range(6)
    }


def _torn(path: Path, end: dict[str, dict[str, str]]) -> str | None:
    if not Run(path).is_complete:
        return "it is not complete"
    return None if small_run.listing(path) == end[path.name] else "it ends in other bytes"
