"""Sizes of studies: which group of runs, and which data set, a report shows first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from orthocond.artifacts.run_reader import Run


def size(runs: Iterable[Run]) -> tuple[int, int]:
    """Return how many of the runs did not diverge, and how many there are.

    Nothing can be compared with a run that diverged: a group in which all runs diverged is smaller
    than any group with a complete run.
    """
    ended = [run.summary["status"] == "complete" for run in runs]
    return sum(ended), len(ended)


def data_sets(runs: Iterable[Run], names: Mapping[Path, str]) -> list[str]:
    """Return the names of data sets, the one with the largest study first, then by name.

    Args:
        runs: complete runs of one task.
        names: path of each run: the name of its study.
    """
    studies: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        studies.setdefault((run.config["data"]["name"], names[run.path]), []).append(run)
    sizes: dict[str, tuple[int, int]] = {}
    for (data, _), own in sorted(studies.items()):
        sizes[data] = max(size(own), sizes.get(data, (0, 0)))
    return sorted(sizes, key=lambda data: sizes[data], reverse=True)
