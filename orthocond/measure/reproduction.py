"""Verdict on a retraining: does the recorded run reproduce?

A run reproduces if all rows are equal to the byte. On the same machine with the same number of
threads nothing less is enough. On another machine, it also reproduces if its figures are within a
tolerance that comes from the spread of the seeds (orthocond.measure.run_figures, Note [Tolerance]).
Without enough seeds this can't be decided.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from orthocond.artifacts.csv_tables import ADDED
from orthocond.artifacts.run_reader import Run
from orthocond.config.stored_settings import flat
from orthocond.measure.retraining import Retrained
from orthocond.measure.run_figures import MIN_SEEDS, Figure, figures, series, tables_of

OF_THE_CODE = ("commit", "packages.orthocond")
"""Entries of an environment that do not describe the machine."""
REQUIRED = ("device_name", "instructions", "threads")
"""Entries without which an environment does not identify the machine."""
RESUMED = "resumed in another environment"


@dataclass(frozen=True)
class Verdict:
    """Outcome of a comparison: whether the run reproduces, and the reason in one line."""

    reproduces: bool
    text: str


@dataclass(frozen=True)
class Rows:
    """Numbers of rows in one table of the recorded and of the retrained run.

    Args:
        recorded: in the recorded run, within the compared steps.
        here: in the retrained run.
        equal: rows that are equal to the byte, in the columns that the recorded run has.
    """

    recorded: int
    here: int
    equal: int


@dataclass(frozen=True)
class Reproduction:
    """A recorded run and its retraining.

    Args:
        run: the recorded run.
        retrained: the retraining.
        seeds: result of ``seeds_beside``.
    """

    run: Run
    retrained: Retrained
    seeds: tuple[Run, ...]

    @cached_property
    def environments(self) -> dict[str, tuple[Any, Any]]:
        """Entry of the environment -> its values in the recorded and in the retrained run."""
        there, here = _flat(self.run.environment), _flat(self.retrained.environment)
        keys = dict.fromkeys((*OF_THE_CODE, *there, *here, *REQUIRED))
        return {key: (there.get(key), here.get(key)) for key in keys}

    @cached_property
    def other_machine(self) -> list[str]:
        """Entries in which the machines differ, or without which they are not identified."""
        return [
            key
            for key, (there, here) in self.environments.items()
            if key not in OF_THE_CODE
            and (there != here or key == RESUMED or (key in REQUIRED and there is None))
        ]

    @cached_property
    def _recorded(self) -> dict[str, pd.DataFrame]:
        """Compared tables of the recorded run, with the columns that it has."""
        found = {}
        for name, rows in tables_of(self.run, self.retrained.steps).items():
            whole = getattr(self.run, name)
            found[name] = rows[[c for c in whole if c not in ADDED or whole[c].notna().any()]]
        return found

    @cached_property
    def _here(self) -> dict[str, pd.DataFrame]:
        return tables_of(self.retrained.run, self.retrained.steps)

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Table -> numbers of its rows."""
        found = {}
        for name, recorded in self._recorded.items():
            there, here = (
                frame[recorded.columns].to_csv(index=False, header=False).splitlines()
                for frame in (recorded, self._here[name])
            )
            equal = sum(a == b for a, b in zip(there, here, strict=False))
            found[name] = Rows(len(there), len(here), equal)
        return found

    @property
    def unrecorded(self) -> list[str]:
        """Columns that the recorded run lacks, because they are newer than it."""
        return [
            str(column)
            for name, rows in self._recorded.items()
            for column in self._here[name]
            if column not in rows
        ]

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """All figures of the recorded run, in the order of its tables."""
        seeds = [series(tables_of(run, self.retrained.steps)) for run in self.seeds]
        recorded = series(self._recorded)
        return figures(recorded, series(self._here), seeds, same_machine=not self.other_machine)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the run reproduces, and why."""
        rows = list(self.rows.values())
        recorded, here = sum(r.recorded for r in rows), sum(r.here for r in rows)
        different = recorded - sum(r.equal for r in rows)
        diverged = self._recorded_diverged
        if diverged != self.retrained.diverged:
            there, now = ("diverged" if d else "did not diverge" for d in (diverged, not diverged))
            return Verdict(False, f"not reproduced: the recorded run {there}, this one {now}")
        if recorded != here:
            return Verdict(False, f"not reproduced: {recorded} rows are recorded, {here} are here")
        if not recorded:
            return Verdict(False, "not decidable: no row is recorded in these steps")
        if not different:
            return Verdict(True, f"reproduced to the bit: all {recorded} rows are equal")
        unequal = f"{different} of {recorded} rows differ"
        if not self.other_machine:
            return Verdict(
                False, f"not reproduced: {unequal}, on the same machine with as many threads"
            )
        return self._by_tolerance(unequal)

    def _by_tolerance(self, unequal: str) -> Verdict:
        judged = [figure for figure in self.figures if figure.within is not None]
        outside = [figure.name for figure in judged if not figure.within]
        if not judged:
            return Verdict(False, f"not decidable: {unequal}, and {self.no_tolerance}")
        if outside:
            return Verdict(
                False,
                f"not reproduced: {len(outside)} of {len(judged)} figures are outside their "
                f"tolerance: {', '.join(outside)}",
            )
        return Verdict(
            True,
            f"reproduced within the spread of {len(self.seeds)} other seeds: all {len(judged)} "
            f"figures are within their tolerance; not to the bit: {unequal}",
        )

    @property
    def no_tolerance(self) -> str:
        """Reason why the figures have no tolerance."""
        count = len(self.seeds)
        there = {0: "there are none", 1: "there is 1"}.get(count, f"there are {count}")
        return (
            f"a tolerance needs {MIN_SEEDS} other seeds of this method and these settings, and "
            f"{there}"
        )

    @property
    def _recorded_diverged(self) -> bool:
        summary = self.run.summary
        return summary["status"] == "diverged" and summary["steps"] <= self.retrained.steps


def seeds_beside(run: Run) -> tuple[Run, ...]:
    """Return the complete runs beside a run, in its folder, with its settings and other seeds.

    Raises:
        CorruptRun: one of the runs is damaged.
    """
    stem = run.name.removesuffix(f"-s{run.settings['seed']}")
    folder = Path(os.path.abspath(run.path)).parent
    named = [p for p in folder.iterdir() if re.fullmatch(re.escape(stem) + r"-s\d+", p.name)]
    own = _without_seed(run.settings)
    found = [
        other
        for other in map(Run, named)
        if other.name != run.name
        and other.status == "complete"
        and _without_seed(other.settings) == own
    ]
    return tuple(sorted(found, key=lambda other: int(other.settings["seed"])))


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment as one level of keys, with RESUMED in place of earlier ones."""
    entries = {key: value for key, value in environment.items() if key != "earlier"}
    return flat(entries) | ({RESUMED: True} if "earlier" in environment else {})


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "seed"}
