"""Every step of writing a run, failing or the last thing that a process does."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import small_run
from faults.counting import KILLED, REFUSED, Count, in_child

from orthocond.artifacts import checkpoints
from orthocond.artifacts.manifests import Damage
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.timing_artifacts import find_timings, write_timing
from orthocond.errors import UserError

Act = Callable[[Callable[..., Any], tuple[Any, ...]], Any]
OPERATIONS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
TIMING = {"ms": [1.0] * 100}


def full_disk(real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_permission(real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def killed_before(real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_within(real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if real.__name__ == "write":
        fd, data = arguments
        real(fd, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


ACTS = {
    full_disk: "the disk is full at one system call",
    no_permission: "permission is refused at one system call",
    killed_before: "SIGKILL before a system call",
    killed_after: "SIGKILL after a system call",
    killed_within: "SIGKILL in the middle of a system call",
}


@contextmanager
def injected(act: Act, at: int, lasting: bool = False) -> Iterator[list[str]]:
    """Let ``act`` take the place of the step number ``at`` (and of all later ones, if lasting).

    Yields:
        The steps so far, by name.
    """
    steps: list[str] = []

    def patched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*arguments, **options)  # reading, or listing a folder
            if name == "mkdir" and os.path.isdir(arguments[0]):
                return real(*arguments, **options)  # EEXIST, whatever the disk: nothing is written
            steps.append(name)
            if len(steps) - 1 == at or (lasting and len(steps) > at):
                call = real if not options else lambda *a: real(*a, **options)
                return act(call, arguments)
            return real(*arguments, **options)

        return step

    patches = [mock.patch.object(os, n, patched(n, getattr(os, n))) for n in OPERATIONS]
    for patch in patches:
        patch.start()
    try:
        yield steps
    finally:
        for patch in patches:
            patch.stop()


class Reference:
    """An uninterrupted run: what it ends in, and every content that a file of it may have."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / small_run.NAME
        self.legal: dict[str, set[bytes]] = {}
        real = os.replace

        def replace(source: Path, target: Path) -> None:
            self.legal.setdefault(Path(target).name, set()).add(Path(source).read_bytes())
            real(source, target)

        with mock.patch.object(os, "replace", replace):
            small_run.train(self.path, last=2, finish=False)
            self.half = folder / "half" / small_run.NAME
            shutil.copytree(self.path, self.half)
            small_run.train(self.path)
        self.end = small_run.listing(self.path)

    def wrong_state(self, path: Path, step: int) -> str | None:
        """How what is on disk is neither the old state nor the new one, complete."""
        if not path.exists():
            return None if step == 0 else "the run is gone"
        for file in path.glob("[!.]*.*"):
            if file.read_bytes() not in self.legal[file.name]:
                return f"{file.name} is neither old nor new"
        for folder in checkpoints.folders(path / "checkpoint"):
            try:
                checkpoints.load(folder, path.name)
            except Damage as damage:
                return f"a half-written checkpoint: {damage}"
        run = Run(path)
        if run.is_complete:
            return None
        checkpoint = run.checkpoint()
        if checkpoint is None:
            return None if step == 0 else "its checkpoint is gone"
        return None if checkpoint.step >= step else f"it is back at step {checkpoint.step}"

    def wrong_end(self, path: Path) -> str | None:
        """How the run, trained on, ends in something else than an uninterrupted one."""
        if not Run(path).is_complete:
            small_run.train(path)
        return None if small_run.listing(path) == self.end else "it ends in other bytes"


def run_steps(folder: Path, stride: int = 1) -> Iterator[Count]:
    """Training a small run from nothing, and from half: every ``stride``-th step of writing.

    Yields:
        A count for each kind of fault.
    """
    reference = Reference(folder / "reference")
    work = folder / "work" / small_run.NAME
    for act, words in ACTS.items():
        for lasting in (False, True) if act in (full_disk, no_permission) else (False,):
            when = words.replace("at one system call", "from one system call on")
            count = Count(f"{when if lasting else words}: the old state or the new, complete")
            for start, step in ((None, 0), (reference.half, 2)):
                for at in range(0, _steps(start, work), stride):
                    what = f"step {at} from {step}"
                    count.add(what, _try(reference, work, start, step, act, at, lasting))
            yield count


def _prepare(start: Path | None, work: Path) -> None:
    shutil.rmtree(work.parent, ignore_errors=True)
    if start is not None:
        shutil.copytree(start, work)


def _steps(start: Path | None, work: Path) -> int:
    _prepare(start, work)
    with injected(full_disk, at=-1) as steps:
        small_run.train(work)
    return len(steps)


def _try(
    reference: Reference,
    work: Path,
    start: Path | None,
    step: int,
    act: Act,
    at: int,
    lasting: bool,
) -> str | None:
    _prepare(start, work)

    def faulty() -> None:
        with injected(act, at, lasting):
            small_run.train(work)

    code, said = in_child(faulty)
    expected = KILLED if act.__name__.startswith("killed") else REFUSED
    if code != expected:
        return f"exit {code} instead of {expected}: {said[-300:]}"
    if code == REFUSED and (said.count("\n") != 1 or not said.startswith("cannot ")):
        return f"not one line: {said!r}"
    return reference.wrong_state(work, step) or reference.wrong_end(work)


def timing_steps(folder: Path) -> Iterator[Count]:
    """Writing a timing artifact: every step of it.

    Yields:
        A count for each kind of fault.
    """
    (folder / "reference").mkdir(parents=True)
    with injected(full_disk, at=-1) as steps:
        write_timing(folder / "reference", "svd", TIMING, {})
    for act, words in ACTS.items():
        count = Count(f"{words}: a timing is there completely or not at all")
        for at in range(len(steps)):
            study = folder / f"{act.__name__}-{at}"
            study.mkdir()
            with_fault = partial(_write_timing, study, act, at)
            code, said = in_child(with_fault)
            broken = None if code in (KILLED, REFUSED) else f"exit {code}: {said[-300:]}"
            try:
                found = find_timings(study)
                if found and found[0].data != TIMING:
                    broken = "other figures"
            except UserError as error:
                broken = str(error)
            count.add(f"step {at}", broken)
        yield count


def _write_timing(study: Path, act: Act, at: int) -> None:
    with injected(act, at):
        write_timing(study, "svd", TIMING, {})
