"""Runs that the book is built from: the committed ones, or those of ``make book RUNS=...``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.commands import RECIPES, MissingRuns, find_recipe, recipe_command
from orthocond.report.provenance import Numbers
from orthocond.report.study import Study
from orthocond.report.tables import chosen_settings

ROOT = Path(__file__).resolve().parents[2]

MAIN = ("cifar10-cpu", "tiny32-cpu", "tiny-imagenet-cpu")
"""Studies that the chapters show where they name none; further ones do not change them."""

GPU_TIMES = Path("benchmarks/results/h200/timing")
"""Times of training steps on a GPU, which go with the committed runs."""

_committed = ContextVar("committed", default=False)
"""True while a text about the committed runs is written, in a book of other runs."""


@contextmanager
def committed_runs() -> Iterator[None]:
    """Read the committed runs inside the context, whatever the book is built from."""
    token = _committed.set(True)
    try:
        yield
    finally:
        _committed.reset(token)


def folders() -> tuple[Path, ...]:
    """Return the folders of ``make book RUNS=...``; without RUNS, the folder of committed runs.

    Paths are relative to the repository's root.
    """
    named = "" if _committed.get() else os.environ.get("ORTHOCOND_RUNS", "")
    return tuple(map(Path, named.split())) or (Path("runs"),)


@cache
def _read(*named: Path) -> Study:
    """Return the runs in folders, which do not change while a page is built."""
    return Study(named[0], also=named[1:])


def all_studies() -> Study:
    """Return all runs that the book is built from."""
    with chdir(ROOT):
        if _committed.get():
            return _committed_study()
        named = folders()
        if named == (Path("runs"),):
            named[0].mkdir(exist_ok=True)
        return _read(*named)


def _identity(run: Run) -> tuple[str, str, str]:
    """Return study, configuration and commit of a run."""
    return run.path.resolve().parent.name, run.config["hash"], str(run.environment.get("commit"))


@cache
def _results() -> frozenset[tuple[str, str, str]]:
    """Return the identities of the committed runs, from ``runs/results.csv``."""
    if not (ROOT / "runs/results.csv").is_file():
        return frozenset()
    rows = pd.read_csv(ROOT / "runs/results.csv", dtype=str)
    return frozenset(zip(rows["study"], rows["config"], rows["commit"], strict=True))


@cache
def _committed_study() -> Study:
    """Return the committed runs.

    Raises:
        MissingRuns: some of them are not in ``runs``.
    """
    runs = Path("runs")
    own = _read(runs).keeping(lambda run: _identity(run) in _results()) if runs.is_dir() else None
    if own is None or len(own.runs) < len(_results()):
        raise MissingRuns("not all committed runs are in 'runs'")
    return own


@cache
def of_committed_runs() -> bool:
    """Return whether the book is built from the committed runs: all of them, and no others."""
    return {_identity(run) for run in all_studies().runs} == _results()


def study(name: str | None = None) -> Study:
    """Return the runs of one study, or of those in ``MAIN``.

    If a book of other runs has none of the studies in ``MAIN``, all of its runs are returned.

    Raises:
        MissingRuns: there is no study of this name.
    """
    every = all_studies()
    own = [n for n in every.names() if n in (MAIN if name is None else (name,))]
    if name is not None and not own:
        known = [recipe for recipe in RECIPES if recipe.study == name]
        commands = [recipe_command(recipe, every.folder) for recipe in known]
        raise MissingRuns(f"no runs of the study {name!r}", *commands)
    return every.only(*own) if own else every


def choices(task: str) -> Numbers:
    """Return the settings that were varied on held-out images, from the folders ``settings``.

    Raises:
        MissingRuns: there are no such runs; the commands are from ``runs/README.md``.
    """
    found = [folder / "settings" for folder in folders() if (folder / "settings").is_dir()]
    try:
        if found:
            return chosen_settings.build(_read(*found), task)
        reason = "no runs on held-out images"
    except MissingRuns as missing:
        reason = missing.reason
    readme = ROOT / "runs/README.md"
    loops = (
        re.findall(r"^for .*?^done$", readme.read_text(), re.S | re.M) if readme.is_file() else []
    )
    preset, place = f"--preset {find_recipe(task).preset} ", f"--out {folders()[0]}/settings/"
    own = [loop.replace("--out runs/settings/", place) for loop in loops if preset in loop]
    raise MissingRuns(reason, *own)


def held_out(task: str) -> pd.DataFrame:
    """Return the errors on held-out images, one row per value of a setting."""
    return choices(task).frame
