"""Folders of runs: which folders are read together, and which runs are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from orthocond.artifacts.run_reader import Run
from orthocond.errors import UserError


def with_studies(folders: Iterable[Path]) -> list[Path]:
    """Return the folders and the folders in them, each once.

    Raises:
        UserError: there is no such folder.
    """
    parts: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"no folder of runs {str(folder)!r}: give an existing folder with --runs"
            )
        for part in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
            parts.setdefault(part.resolve(), part)
    return list(parts.values())


def refuse_copies(runs: Iterable[Run], names: Mapping[Path, str]) -> None:
    """Check that no run of a study is there twice, which would count its seed twice.

    Args:
        runs: complete runs.
        names: path of each run: the name of its study. Studies of the same name are read as one.

    Raises:
        UserError: two folders of the same study have a run of the same settings and seed.
    """
    found: dict[tuple[str, str], Run] = {}
    for run in runs:
        first = found.setdefault((names[run.path], run.config["hash"]), run)
        if first is not run:
            raise UserError(
                f"the same run twice, {str(first.path)!r} and {str(run.path)!r}: remove one of "
                "them, or give only one of the folders"
            )
