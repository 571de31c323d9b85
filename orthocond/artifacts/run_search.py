"""Names of runs, and the search for runs in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from orthocond.artifacts.atomic_files import safe_name
from orthocond.artifacts.run_reader import CONFIG, SUMMARY, Run


def run_name(task: str, data: str, model: str, method: str, seed: int) -> str:
    """Return the name of a run's folder.

    Raises:
        UserError: a part contains other characters than letters, digits, '.', '_', '+' and '-'.

    Example:
        >>> run_name("dbn", "leaves", "small", "svd+nog", 0)
        'dbn-leaves-small-svd+nog-s0'
    """
    parts = {"task": task, "data": data, "model": model, "method": method, "seed": f"s{seed}"}
    return "-".join(safe_name(kind, part) for kind, part in parts.items())


def study_of(run: Run) -> str:
    r"""Return the name of the folder that a run is in, as text that a table and a file can hold.

    Bytes that are not UTF-8, line breaks and the like are spelled out, as in ``caf\udce9``.

    Example:
        >>> study_of(Run("/runs/mine/dbn-leaves-small-svd-s0"))
        'mine'
    """
    name = run.path.resolve().parent.name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def find_runs(folder: str | Path) -> list[Run]:
    """Return the complete runs in a folder, verified and sorted by name.

    The list is empty if there is no such folder.

    Raises:
        CorruptRun: one of the runs is damaged.
    """
    return [run for run in _runs(Path(folder)) if run.is_complete]


def count_incomplete(folder: str | Path) -> int:
    """Return how many runs in a folder were started and are not complete."""
    return sum(not run.is_complete for run in _runs(Path(folder)))


def _runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, sorted by name, complete or not."""
    if not folder.is_dir():
        return []
    return [Run(path) for path in sorted(folder.iterdir()) if _is_run(path)]


def _is_run(path: Path) -> bool:
    """Return whether a folder is a run, complete, incomplete or damaged."""
    return not path.name.startswith(".") and any(
        os.path.lexists(path / name) for name in (CONFIG, SUMMARY)
    )
