"""``make faults``: the whole fault programme, its counts written to ``results.json``.

``python -m faults [PART...]``, in the folder ``tests``; without a part all of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import torch
from faults import disk, fuzz, hostile, images, integrity, kills, numbers, steps, writers
from faults.counting import Count

from orthocond.training.environment import describe

RESULTS = Path(__file__).with_name("results.json")


def _integrity(folder: Path) -> Iterable[Count]:
    found = integrity.artifacts(folder / "artifacts")
    yield integrity.flips(found, bits=1000)
    yield integrity.truncations(found)
    yield integrity.swaps(folder / "swaps")


def _steps(folder: Path) -> Iterable[Count]:
    yield from steps.run_steps(folder / "runs")
    yield from steps.timing_steps(folder / "timings")


def _disk(folder: Path) -> Iterable[Count]:
    yield disk.file_size_limits(folder / "limits", stride=16)
    yield disk.full_disks(folder / "disks")


def _kill(folder: Path) -> Iterable[Count]:
    for signum, times in ((SIGKILL, 20), (SIGTERM, 5), (SIGINT, 5)):
        yield kills.stopped(folder / signum.name, signum, times)


def _processes(folder: Path) -> Iterable[Count]:
    yield writers.together(folder / "together", rounds=10)
    yield writers.one_killed(folder / "killed", rounds=10)


def _hostile(folder: Path) -> Iterable[Count]:
    for programme in hostile.PROGRAMMES:
        yield programme(folder / programme.__name__)
    yield images.large_images(folder / "images")


def _numbers(folder: Path) -> Iterable[Count]:
    yield from numbers.spoiled_steps(folder)


def _fuzz(folder: Path) -> Iterable[Count]:
    yield fuzz.lines_in_process(folder / "lines")
    yield fuzz.configurations_in_process(folder / "configurations")
    yield fuzz.real_commands(folder / "real")


PARTS: dict[str, Callable[[Path], Iterable[Count]]] = {
    "kill": _kill,
    "steps": _steps,
    "integrity": _integrity,
    "disk": _disk,
    "processes": _processes,
    "numbers": _numbers,
    "hostile": _hostile,
    "fuzz": _fuzz,
}


def run(parts: Iterable[str]) -> int:
    """Run these parts, write each one's counts as it ends, and say whether all promises held."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    broken = 0
    for part in parts:
        start, counts = time.perf_counter(), []
        with tempfile.TemporaryDirectory() as folder:
            for count in PARTS[part](Path(folder)):
                counts.append(asdict(count))
                broken += count.tried - count.held
                print(f"{count.held:6} of {count.tried:6}  {count.promise}", flush=True)
        environment = describe(torch.device("cpu"), "float32", 1)
        seconds = round(time.perf_counter() - start)
        results[part] = {"counts": counts, "seconds": seconds, "environment": environment}
        ordered = {name: results[name] for name in PARTS if name in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    return int(broken > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run(sys.argv[1:] or PARTS))
