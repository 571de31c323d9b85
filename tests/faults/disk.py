"""A full disk: one line, what was saved before is intact, and space makes it go on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import small_run
from faults.counting import DONE, REFUSED, Count, in_child
from faults.steps import Reference

BLOCK = 4096


def _train_with_file_size(work: Path, limit: int) -> tuple[int, str]:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        small_run.train(work)

    return in_child(limited)


def _judge(reference: Reference, work: Path, step: int, code: int, said: str) -> str | None:
    if code == REFUSED and (said.count("\n") != 1 or not said.startswith("cannot write ")):
        return f"not one line: {said!r}"
    if code not in (DONE, REFUSED):
        return f"exit {code}: {said[-300:]}"
    return reference.wrong_state(work, step) or reference.wrong_end(work)


def file_size_limits(folder: Path, stride: int = 1) -> Count:
    """Every ``stride``-th limit below the largest file's size (RLIMIT_FSIZE)."""
    reference = Reference(folder / "reference")
    largest = max(p.stat().st_size for p in reference.path.rglob("*") if p.is_file())
    work = folder / "work" / small_run.NAME
    count = Count("a file that can't grow: one line, earlier state intact, resumes with space")
    for start, step in ((None, 0), (reference.half, 2)):
        for limit in range(0, largest, stride):
            shutil.rmtree(work.parent, ignore_errors=True)
            if start is not None:
                shutil.copytree(start, work)
            code, said = _train_with_file_size(work, limit)
            broken = "it did not notice" if code == DONE else None
            count.add(
                f"{limit} bytes from step {step}",
                broken or _judge(reference, work, step, code, said),
            )
    return count


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[bool]:
    """A file system of that size in a folder, where root is to be had."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disks(folder: Path, stride: int = 1) -> Count:
    """A 1 MB disk with 0, 1, 2... blocks free; none is tried without root."""
    reference = Reference(folder / "reference")
    count = Count("a full disk: one line, earlier state intact, resumes with space")
    with small_disk(folder / "disk") as mounted:
        if not mounted:
            count.notes["not tried"] = "a tmpfs can't be mounted here"
            return count
        for start, step in ((None, 0), (reference.half, 2)):
            for free in range(0, 40, stride):
                _one_full_disk(count, reference, folder / "disk", start, step, free)
    return count


def _one_full_disk(
    count: Count, reference: Reference, disk: Path, start: Path | None, step: int, free: int
) -> None:
    work, ballast = disk / "study" / small_run.NAME, disk / "ballast"
    shutil.rmtree(work.parent, ignore_errors=True)
    if start is not None:
        shutil.copytree(start, work)
    with ballast.open("wb", buffering=0) as file:
        status = os.statvfs(disk)
        for _ in range(max(0, status.f_bavail - free)):
            file.write(bytes(BLOCK))
    code, said = in_child(lambda: small_run.train(work))
    ballast.unlink()
    count.note("noticed" if code == REFUSED else "fitted in")
    count.add(f"{free} blocks from step {step}", _judge(reference, work, step, code, said))
