"""Criteria on one method alone: the level of a measure, and events that can happen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from orthocond.artifacts.run_reader import Run
from orthocond.config.tasks import DBN, GCP
from orthocond.report.ledger.criteria import RunCriterion, about
from orthocond.report.ledger.evidence import ENOUGH, Bench, Finding, numbers
from orthocond.report.ledger.readings import MEASURES, Measure, is_rounding, rounding
from orthocond.report.ledger.verdicts import BELOW, Verdict, can_happen, near, on_side
from orthocond.report.statistics import Difference, difference
from orthocond.report.studies.selection import Selection
from orthocond.report.style import label


@dataclass(frozen=True)
class Level(RunCriterion):
    """Criterion: one method's mean is near a claimed value, or on one side of it.

    Args:
        method: canonical name.
        value: claimed value; for a condition number, its log10.
        measure: key of ``MEASURES``.
        side: claimed side of the value, ``BELOW`` or ``ABOVE``; None where the paper claims that
            the mean is near the value.
        task: ``dbn`` or ``gcp``.

    The kappa that an SVD sees has no level of its own where it is rounding noise: it depends on
    the arithmetic. Then the verdict is "not comparable".
    """

    method: str
    value: float
    measure: str = "kappa"
    side: int | None = None
    task: str = DBN.name

    def _of(self, runs: Iterable[Run], measure: Measure) -> Difference:
        values = np.array([measure.reading(run) for run in runs], dtype=float)
        values = values[np.isfinite(values)]
        return difference(values, np.full(len(values), self.value))

    @property
    def part(self) -> str:
        """The method and its claimed level, in words."""
        sign = {None: "≈", BELOW: "<"}.get(self.side, ">")
        where = about([self.measure], self.task)
        return f"{where}, {label(self.method)}, claimed {sign} {self.value:g}"

    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the claim by the mean over the seeds and its interval."""
        measure, runs = MEASURES[self.measure], own.runs.get(self.method, ())
        found = self._of(runs, measure)
        if found.n < ENOUGH:
            return None
        moved = replace(
            found,
            mean=found.mean + self.value,
            low=found.low + self.value,
            high=found.high + self.value,
        )
        verdict = near(found) if self.side is None else on_side(found, self.side)
        if self.measure == "kappa" and any(map(is_rounding, runs)):
            verdict = Verdict.INCOMPARABLE
        notes = []
        if measure.beside:
            other = self._of(runs, MEASURES[measure.beside])
            notes.append(f"{MEASURES[measure.beside].name}: {other.mean + self.value:.2f}")
        if "κ" in measure.name:
            notes.append(rounding({self.method: runs}))
        return Finding(
            verdict,
            self.part,
            numbers(moved, measure.unit),
            moved.mean,
            moved.low,
            moved.high,
            found.n,
            beside=". ".join(note for note in notes if note),
            source=bench.note(own),
            runs=runs,
        )


@dataclass(frozen=True)
class CanHappen(RunCriterion):
    """Criterion: a measure is above 0 in at least one of a method's runs.

    Runs without the event do not refute that it can happen; the finding then gives the upper bound
    of the share of runs.
    """

    method: str
    measure: str = "failures"
    task: str = GCP.name

    @property
    def part(self) -> str:
        """The method and the claim on its runs, in words."""
        where = about([self.measure], self.task)
        return f"{where}, {label(self.method)}, claimed to be possible"

    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the claim by the number of runs in which the measure is above 0."""
        measure, runs = MEASURES[self.measure], own.runs.get(self.method, ())
        if len(runs) < ENOUGH:
            return None
        times = sum((measure.reading(run) or 0) > 0 for run in runs)
        verdict, low, high = can_happen(times, len(runs))
        text = f"{times} of {len(runs)} runs; share of runs between {low:.2f} and {high:.2f}"
        share = times / len(runs)
        return Finding(
            verdict, self.part, text, share, low, high, len(runs), source=bench.note(own), runs=runs
        )
