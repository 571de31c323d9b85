"""Files made to harm: refused within a second, nothing run, nothing written elsewhere."""

from __future__ import annotations

import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import small_run
from faults.counting import Count

from orthocond.artifacts import checkpoints
from orthocond.artifacts.atomic_files import canonical_json
from orthocond.artifacts.manifests import MANIFEST, seal, with_hash
from orthocond.artifacts.run_reader import LIMITS, Run
from orthocond.artifacts.run_search import find_runs, run_name
from orthocond.artifacts.timing_artifacts import find_timings, write_timing
from orthocond.config.sources import resolve
from orthocond.errors import UserError

MEMORY = 1 << 30  # bytes that an answer may take, in addresses
DEEP = 100_000
LARGE = 1 << 36  # bytes, as a hole in the file
CONTENTS: dict[str, bytes] = {
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a long number": b'{"a": ' + b"9" * 10_000_000 + b"}",
    "commas": b"," * 10_000_000,
    "one long line": b"a" * 10_000_000,
    "quotes": b'"' * 10_000_000,
    "zeros": bytes(10_000_000),
    "a million columns": b",".join([b"epoch"] * 1_000_000) + b"\n",
}
TOMLS = {  # below the largest size that is read, but for the last
    "deep lists": b"a = " + b"[" * 60_000,
    "deep tables": b"a = " + b"{a = " * 12_000,
    "a deep key": b".".join([b"a"] * 30_000) + b" = 1",
    "deep keys": b"\n".join(b"k%d" % i + b".a" * 100 + b" = 1" for i in range(300)),
    "deep headers": b"\n".join(b"[k%d" % i + b".a" * 100 + b"]" for i in range(300)),
    "many tables": b"\n".join(b"[a%d]" % i for i in range(8_000)),
    "a long number": b"epochs = " + b"9" * 60_000,
    "a long text": b'method = "' + b"a" * 60_000 + b'"',
    "zeros": bytes(60_000),
    "64 MiB": bytes(64 << 20),
}
SETTINGS = {
    "deep lists": "lr=" + "[" * 60_000,
    "deep tables": "lr=" + "{a = " * 12_000,
    "a deep key": "lr" + ".a" * 30_000 + "=1",
    "a key as deep as allowed": "lr" + ".a" * 100 + "=1",
    "a deep key in a table": "lr={a" + ".a" * 30_000 + "=1}",
    "a long number": "epochs=" + "9" * 60_000,
    "a long text": "method=" + "a" * 60_000,
    "many settings": "lr" + "=" * 60_000,
}
NAMES = ("../outside", "/tmp/outside", "a/../../outside", "a\nb", "", ".", "..", "a\0b", "~")


class Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@dataclass(frozen=True)
class Place:
    """A file that the program loads: its name, what puts bytes there, and what reads it."""

    name: str
    put: Callable[[bytes], object]
    read: Callable[[], object]


def _reseal(folder: Path, about: dict[str, Any], files: dict[str, bytes], name: str, data: bytes):
    """Write a file, and a manifest that fits it."""
    for file, content in {**files, name: data}.items():
        (folder / file).write_bytes(content)
    (folder / MANIFEST).write_bytes(seal(about, {**files, name: data}))


def _contents(folder: Path, names: Iterator[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def places(folder: Path) -> list[Place]:
    """Every file of runs, checkpoints and timings, under a manifest that fits it; manifests too."""
    run = small_run.train(folder / "study" / small_run.NAME)
    about = {"run": run.name, "config": run.config["hash"]}
    files = _contents(run.path, iter(LIMITS))
    step = checkpoints.folders(run.path / "checkpoint")[0]
    step_about = {**about, "checkpoint": step.name, "step": int(step.name.split("-")[0])}
    step_files = _contents(step, iter(checkpoints.LIMITS))
    case = write_timing(folder / "timings", "svd", {}, {})
    case_files = _contents(case, iter(("timing.json", "environment.json")))

    def read_run(attribute: str) -> object:
        return getattr(Run(run.path), attribute)

    def read_checkpoint() -> object:
        return Run(run.path).checkpoint()

    def read_timing() -> object:
        return find_timings(case.parent)

    return [
        *[
            Place(
                n, partial(_reseal, run.path, about, files, n), partial(read_run, n.split(".")[0])
            )
            for n in LIMITS
        ],
        *[
            Place(
                f"checkpoint/{n}",
                partial(_reseal, step, step_about, step_files, n),
                read_checkpoint,
            )
            for n in step_files
        ],
        *[
            Place(f"svd/{n}", partial(_reseal, case, {"timing": "svd"}, case_files, n), read_timing)
            for n in case_files
        ],
        Place(MANIFEST, (run.path / MANIFEST).write_bytes, lambda: find_runs(run.path.parent)),
        Place(f"checkpoint/{MANIFEST}", (step / MANIFEST).write_bytes, read_checkpoint),
        Place(f"svd/{MANIFEST}", (case / MANIFEST).write_bytes, read_timing),
    ]


def _cpu_seconds() -> float:
    """Of this process and of the children that it waited for: what else runs does not count."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def refused(count: Count, what: str, read: Callable[[], object], mark: Path) -> None:
    start = _cpu_seconds()
    try:
        read()
        broken = "it was read as data"
    except UserError as error:
        fine = "\n" not in str(error) and len(str(error)) < 1000
        broken = None if fine else "not one line"
    except Exception as error:
        broken = repr(error)[:300]
    seconds = _cpu_seconds() - start
    slowest = "slowest answer in CPU seconds"
    count.notes[slowest] = max(float(count.notes.get(slowest, 0)), round(seconds, 3))
    count.add(what, "a pickle ran" if mark.exists() else broken)


@contextmanager
def little_memory() -> Iterator[None]:
    """Let what asks for too much have a MemoryError, and not all of the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def pickles(folder: Path) -> Count:
    """A pickle that runs a command, in every place from which a file is loaded."""
    count, mark = Count("a pickle is refused without running"), folder / "mark"
    for place in places(folder):
        for protocol in (0, pickle.HIGHEST_PROTOCOL):
            place.put(pickle.dumps(Bomb(mark), protocol))
            refused(count, f"{place.name}, protocol {protocol}", place.read, mark)
    return count


def absurd_contents(folder: Path) -> Count:
    """JSON, CSV and TOML of absurd depth or size, in every place from which a file is loaded."""
    count, mark = Count("absurd JSON, CSV and TOML is refused"), folder / "mark"
    found, file = places(folder), folder / "config.toml"
    with little_memory():
        for place in found:
            for what, data in CONTENTS.items():
                place.put(data)
                refused(count, f"{place.name}: {what}", place.read, mark)
        for what, data in TOMLS.items():
            file.write_bytes(data)
            refused(count, f"{file.name}: {what}", partial(resolve, file=file), mark)
        for what, text in SETTINGS.items():
            refused(count, f"--set: {what}", partial(resolve, settings=[text]), mark)
    return count


def absurd_sizes(folder: Path) -> Count:
    """Files that claim 64 GiB (a hole on the disk)."""
    count, mark = Count("a file of absurd size is refused before it is read"), folder / "mark"
    run = small_run.train(folder / "study" / small_run.NAME)
    half = small_run.train(folder / "half" / small_run.NAME, last=3, finish=False)
    step = checkpoints.folders(half.path / "checkpoint")[0]
    targets = [(run, run.path / name) for name in [*LIMITS, MANIFEST]]
    targets += [(half, half.path / "config.json")]
    targets += [(half, step / name) for name, limit in checkpoints.LIMITS.items() if limit]
    for damaged, path in targets:
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(LARGE)
        refused(count, path.name, partial(small_run.train, damaged.path), mark)
        path.write_bytes(data)
    return count


def names(folder: Path) -> Count:
    """Names that lead out of the study, in a configuration and in a manifest."""
    count, mark = Count("no name leads out of the study"), folder / "outside"
    parts = {"task": "dbn", "data": "leaves", "model": "small", "method": "svd"}
    run = small_run.train(folder / "study" / small_run.NAME)
    about = {"run": run.name, "config": run.config["hash"]}
    files = _contents(run.path, iter(LIMITS))
    for name in NAMES:
        for part in parts:
            read = partial(run_name, **{**parts, part: name}, seed=0)
            refused(count, f"{part} {name!r}", read, mark)
        case = partial(write_timing, folder / "timings", name, {}, {})
        refused(count, f"case {name!r}", case, mark)
        (run.path / MANIFEST).write_bytes(seal(about, {**files, name: b""}))
        refused(count, f"manifest {name!r}", partial(find_runs, run.path.parent), mark)
    return count


def links(folder: Path) -> Count:
    """Every file and folder of a run as a link out of the study, while it is trained."""
    count = Count("what a link points to is not changed")
    outside = folder / "outside"
    for where in (*LIMITS, MANIFEST, ".lock", "checkpoint", ""):
        shutil.rmtree(folder, ignore_errors=True)
        run = small_run.train(folder / "study" / small_run.NAME, last=3, finish=False)
        target = run.path / where
        if target.exists():
            target.rename(outside)
        else:
            outside.write_bytes(with_hash({}, "hash"))
        target.symlink_to(outside)
        before = _everything(outside)
        try:
            small_run.train(run.path)
            count.note("replaced by a file")
        except UserError:
            count.note("refused")
        changed = _everything(outside) != before
        count.add(f"link {where or 'run'}", "it was changed" if changed else None)
    return count


def _everything(path: Path) -> bytes:
    return canonical_json(small_run.listing(path)) if path.is_dir() else path.read_bytes()


PROGRAMMES = (pickles, absurd_contents, absurd_sizes, names, links)
