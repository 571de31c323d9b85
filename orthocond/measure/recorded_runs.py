"""Runs that paths name, and the conditioning that these runs recorded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orthocond.artifacts.run_reader import CHECKPOINTS, CONFIG, Run
from orthocond.artifacts.run_search import find_runs, study_of
from orthocond.errors import UserError
from orthocond.measure.phase_summary import by_phase


def named_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Return the runs that paths name: runs, all runs of a study, or all studies in a folder.

    Each run is named once. An incomplete run is included if it has a checkpoint.

    Raises:
        UserError: a path names no run, study, or folder of studies.
        CorruptRun: the files of a run are damaged.
    """
    runs: list[Run] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"there is no run or study {str(path)!r}")
        holder = _holder(path)
        if holder is not None:
            raise UserError(
                f"{str(path)!r} is of a run's checkpoints: name the run {str(holder)!r}"
            )
        run = Run(path)
        if run.is_complete or run.has_checkpoint:
            runs.append(run)
            continue
        parts = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
        found = [run for part in parts for run in _runs_in(part)]
        if not found:
            raise UserError(f"{str(path)!r} has neither a complete run nor a checkpoint")
        runs += found
    named: dict[Path, Run] = {}
    for run in runs:
        named.setdefault(run.path.resolve(), run)
    return list(named.values())


def _holder(path: Path) -> Path | None:
    """Return the run that holds this checkpoint or folder of checkpoints; None for other paths."""
    for folder in (path.absolute(), path.absolute().parent):
        if folder.name == CHECKPOINTS and (folder.parent / CONFIG).exists():
            return folder.parent
    return None


def _runs_in(folder: Path) -> list[Run]:
    """Return the complete runs of a study and the runs with a checkpoint, sorted by name."""
    complete = {run.name: run for run in find_runs(folder)}
    others = [Run(path) for path in folder.iterdir() if path.name not in complete]
    begun = [run for run in others if (run.path / CONFIG).is_file() and run.has_checkpoint]
    return sorted([*complete.values(), *begun], key=lambda run: run.name)


def measure_run(run: Run) -> dict[str, Any]:
    """Return the conditioning that a run recorded. An incomplete run uses its newest checkpoint.

    Returns:
        ``study`` (the name of its folder), ``run`` (its name), ``status``, and ``phases``, the
        result of ``by_phase``.

    Raises:
        CorruptRun: the files of the run are damaged.
    """
    _ = run.config  # reading it checks it: the manifest does not while the run is incomplete
    return {
        "study": study_of(run),
        "run": run.name,
        "status": run.status,
        "phases": by_phase(run.conditioning),
    }
