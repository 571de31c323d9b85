"""Flipped bits, truncations and swapped files: each is detected by name, and nothing is read."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import small_run
from faults.counting import Count

from orthocond.artifacts import checkpoints
from orthocond.artifacts.manifests import MANIFEST, CorruptRun
from orthocond.artifacts.run_reader import LIMITS, Run
from orthocond.artifacts.run_search import find_runs
from orthocond.artifacts.timing_artifacts import find_timings, write_timing
from orthocond.errors import UserError


@dataclass(frozen=True)
class Artifact:
    """A file, the name that an error must give it, and what reads it."""

    path: Path
    name: str
    read: Callable[[], object]
    says: str  # what else the error must say

    def missed(self) -> str | None:
        """How the damage that was just done to the file escaped."""
        try:
            self.read()
        except CorruptRun as error:
            if error.file != self.name:
                return f"{error.file} was named"
            return None if self.says in str(error) else f"it says {error}"
        except Exception as error:
            return repr(error)
        return "it was read as data"


def artifacts(folder: Path) -> list[Artifact]:
    """Every file of a complete run, of one that is not (its checkpoint), and of a timing."""
    complete = small_run.train(folder / "complete" / small_run.NAME)
    half = small_run.train(folder / "half" / small_run.NAME, last=3, finish=False)
    timing = write_timing(folder / "timings", "svd", {"ms": [1.0, 2.0]}, {"threads": 1})
    return [
        *of_complete(complete.path),
        *of_incomplete(half.path, small_run.train),
        *[
            Artifact(timing / name, name, lambda: find_timings(timing.parent), "and measure it")
            for name in ("timing.json", "environment.json", MANIFEST)
        ],
    ]


def of_complete(path: Path) -> list[Artifact]:
    """The files that readers of a complete run rely on."""
    return [
        Artifact(path / name, name, lambda: find_runs(path.parent), "orthocond train redoes it")
        for name in [*LIMITS, MANIFEST]
    ]


def of_incomplete(path: Path, train: Callable[[Path], object]) -> list[Artifact]:
    """The files that training relies on when it resumes a run."""
    checkpoint = checkpoints.folders(path / "checkpoint")[0]
    return [
        Artifact(
            file,
            str(file.relative_to(path)),
            lambda: train(path),
            "orthocond train redoes it from",
        )
        for file in [path / "config.json", *sorted(checkpoint.iterdir())]
    ]


def flips(found: list[Artifact], bits: int, seed: int = 0) -> Count:
    """Flip bits drawn over all artifacts, each alone; files in turn, so that small ones count."""
    count, rng = (
        Count("a flipped bit is detected by name, and nothing is read"),
        random.Random(seed),
    )
    for i in range(bits):
        artifact = found[i % len(found)]
        data = artifact.path.read_bytes()
        bit = rng.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        _damage(count, artifact, data, bytes(flipped), f"bit {bit}")
    return count


def truncations(found: list[Artifact], stride: int = 1) -> Count:
    """Cut every artifact at every ``stride``-th byte."""
    count = Count("a truncated file is detected by name, and nothing is read")
    for artifact in found:
        data = artifact.path.read_bytes()
        for length in range(0, len(data), stride):
            _damage(count, artifact, data, data[:length], f"cut at {length}")
    return count


def _damage(count: Count, artifact: Artifact, data: bytes, damaged: bytes, what: str) -> None:
    artifact.path.write_bytes(damaged)
    try:
        count.add(f"{artifact.name}, {what}", artifact.missed())
    finally:
        artifact.path.write_bytes(data)


def swaps(folder: Path) -> Count:
    """Put each file of another run, or of another step, in the place of its own."""
    count = Count("a file of another run or step is detected")
    ours = artifacts(folder / "ours")
    other = {**small_run.CONFIG, "seed": 1}
    complete = small_run.train(folder / "other" / small_run.NAME, last=6, config=other)
    half = folder / "steps" / small_run.NAME
    small_run.train(half, last=2, finish=False)
    for artifact in ours:
        for origin in (complete.path, half):
            theirs = origin / artifact.name
            if "/" in artifact.name:  # in a checkpoint, whose folder is another
                theirs = checkpoints.folders(origin / "checkpoint")[0] / artifact.path.name
            data = artifact.path.read_bytes()
            if theirs.exists() and theirs.read_bytes() != data:
                artifact.path.write_bytes(theirs.read_bytes())
                count.add(f"{artifact.name} from {origin.parent.name}", _accepted(artifact))
                artifact.path.write_bytes(data)
    for source, target in (("other", "ours/complete"), ("steps", "ours/half")):
        _swap_checkpoints(count, folder / source, folder / target)
    return count


def _accepted(artifact: Artifact) -> str | None:
    """How a whole, valid file in the wrong place escaped.

    A manifest in the wrong place accuses the files that it does not fit, and the settings of
    another run are told apart key by key.
    """
    try:
        artifact.read()
    except CorruptRun as error:
        fine = artifact.name == error.file or artifact.path.name == MANIFEST
        return None if fine else f"{error.file} was named"
    except UserError as error:
        return None if "has another configuration: seed" in str(error) else str(error)
    return "it was read as data"


def _swap_checkpoints(count: Count, source: Path, target: Path) -> None:
    """Put a whole checkpoint where another belongs."""
    theirs = checkpoints.folders(source / small_run.NAME / "checkpoint")[0]
    parent = target / small_run.NAME / "checkpoint"
    ours = checkpoints.folders(parent)[0]
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    try:
        Run(parent.parent).checkpoint()
    except UserError as error:
        named = f"checkpoint/{ours.name}/{MANIFEST}" in str(error)
        count.add(f"a checkpoint of {source.name}", None if named else str(error))
    else:
        count.add(f"a checkpoint of {source.name}", "it was read as data")
