"""Criteria that test a claim against recorded runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from orthocond.artifacts.run_writer import Run
from orthocond.report.ledger.evidence import ENOUGH, Bench, Finding, Need, judged, numbers
from orthocond.report.ledger.readings import MEASURES, Measure, rounding
from orthocond.report.ledger.verdicts import BELOW, Verdict, near, of_size, often, on_side
from orthocond.report.statistics import (
    Contrast,
    Difference,
    difference,
    paired,
    smallest_detectable,
)
from orthocond.report.study import Selection
from orthocond.report.style import label


def about(measure: Measure, task: str, data: str | None = None) -> str:
    """Return the measure's name, with the task if it is GCP and the data set if one is given."""
    return f"{'GCP, ' * (task == 'gcp')}{measure.name}" + (f" on {data}" if data else "")


@dataclass(frozen=True)
class Compared:
    """Criterion: the paired difference of two methods has a claimed side or a claimed size.

    Args:
        method: canonical name of the method.
        baseline: canonical name of the method that it is compared with.
        measure: key of ``MEASURES``.
        side: claimed side of the bound, ``BELOW`` or ``ABOVE``.
        bound: the difference is claimed to be below or above this value.
        size: claimed absolute value of the difference; None where only a side is claimed.
        control: kernel size of the baseline's stem in pixels, where it is not the method's.
        task: ``dbn`` or ``gcp``.
        data: data set of the paper that the claim is about; None takes the one with most runs.
    """

    method: str
    baseline: str = "svd"
    measure: str = "error"
    side: int = BELOW
    bound: float = 0.0
    size: float | None = None
    control: int | None = None
    task: str = "dbn"
    data: str | None = None

    @property
    def contrast(self) -> Contrast:
        """The contrast between the two methods."""
        return Contrast(self.method, self.baseline, self.control)

    @property
    def needs(self) -> tuple[Need, Need]:
        """The runs that are required of both methods."""
        return (
            Need(self.task, self.data, None, self.method),
            Need(self.task, self.data, self.control, self.baseline),
        )

    def part(self, measure: Measure) -> str:
        """Return what is compared and what the paper claims about it, in words."""
        sign = "<" if self.side == BELOW else ">"
        limit = f"{sign} {self.bound:g}".replace("-", "−")
        if self.size is not None:
            limit += f", by {self.size:g}"
        stem = f" with a {self.control}×{self.control} stem" if self.control else ""
        against = f"{label(self.method)} against {label(self.baseline)}{stem}"
        return f"{about(measure, self.task, self.data)}, {against}, claimed {limit}"

    def difference(self, bench: Bench, measure: str) -> Difference:
        """Return the paired difference of one measure.

        Raises:
            MissingRuns: the task has no runs.
        """
        own = bench.selection(self.task, self.data).runs.get(self.method, ())
        base = bench.base(self.contrast, self.task, self.data)
        return paired(own, base, MEASURES[measure].reading)

    def _verdict(self, found: Difference, p: float | None) -> Verdict:
        if self.size is not None:
            return of_size(found, self.side, self.size, p)
        return on_side(found, self.side, self.bound, p)

    def _beside(self, bench: Bench, key: str | None) -> str:
        if key is None:
            return ""
        found = self.difference(bench, key)
        if found.n < ENOUGH:
            return ""
        measure = MEASURES[key]
        return f"{measure.name}: {numbers(found, measure.unit)}: {self._verdict(found, None)}"

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the mean difference over equal seeds and its interval."""
        part = self.part(MEASURES[self.measure])
        return judged(bench, part, self.needs, lambda own: self._find(bench, part, own))

    def _find(self, bench: Bench, part: str, own: Selection) -> Finding | None:
        measure, found = MEASURES[self.measure], self.difference(bench, self.measure)
        if found.n < ENOUGH:
            return None
        pair = {self.method: own.runs.get(self.method, ())}
        base = bench.base(self.contrast, self.task, self.data)
        p = None
        if self.measure == "error" and self.bound == 0:
            p = bench.adjusted(self.contrast, self.task, self.data)
        notes = [self._beside(bench, measure.beside)]
        if "κ" in measure.name:
            notes.append(rounding(pair | {self.baseline: base}))
        return Finding(
            self._verdict(found, p),
            part,
            numbers(found, measure.unit, p),
            found.mean,
            found.low,
            found.high,
            found.n,
            np.nan if p is None else p,
            smallest_detectable(found.std, found.n),
            ". ".join(note for note in notes if note),
            bench.note(own),
            (*pair[self.method], *base),
        )


@dataclass(frozen=True)
class Level:
    """Criterion: one method's mean is near a claimed value, or on one side of it.

    Args:
        method: canonical name.
        value: claimed value; for a condition number, its log10.
        measure: key of ``MEASURES``.
        side: claimed side of the value, ``BELOW`` or ``ABOVE``; None where the paper claims that
            the mean is near the value.
        task: ``dbn`` or ``gcp``.
    """

    method: str
    value: float
    measure: str = "kappa"
    side: int | None = None
    task: str = "dbn"

    def _of(self, runs: Iterable[Run], measure: Measure) -> Difference:
        values = np.array([measure.reading(run) for run in runs], dtype=float)
        values = values[np.isfinite(values)]
        return difference(values, np.full(len(values), self.value))

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the mean over the seeds and its interval."""
        measure = MEASURES[self.measure]
        sign = {None: "≈", BELOW: "<"}.get(self.side, ">")
        part = f"{about(measure, self.task)}, {label(self.method)}, claimed {sign} {self.value:g}"
        need = Need(self.task, None, None, self.method)
        return judged(bench, part, [need], lambda own: self._find(bench, part, own))

    def _find(self, bench: Bench, part: str, own: Selection) -> Finding | None:
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
        notes = []
        if measure.beside:
            other = self._of(runs, MEASURES[measure.beside])
            notes.append(f"{MEASURES[measure.beside].name}: {other.mean + self.value:.2f}")
        if "κ" in measure.name:
            notes.append(rounding({self.method: runs}))
        return Finding(
            verdict,
            part,
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
class Often:
    """Criterion: a measure is above 0 in more than half of a method's runs."""

    method: str
    measure: str = "failures"
    task: str = "gcp"

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the share of runs in which the measure is above 0."""
        measure = MEASURES[self.measure]
        part = f"{about(measure, self.task)}, {label(self.method)}, claimed > 0 in most runs"
        need = Need(self.task, None, None, self.method)
        return judged(bench, part, [need], lambda own: self._find(bench, part, own))

    def _find(self, bench: Bench, part: str, own: Selection) -> Finding | None:
        measure, runs = MEASURES[self.measure], own.runs.get(self.method, ())
        if len(runs) < ENOUGH:
            return None
        times = sum((measure.reading(run) or 0) > 0 for run in runs)
        verdict, low, high = often(times, len(runs))
        text = f"{times} of {len(runs)} runs; share between {low:.2f} and {high:.2f}"
        share = times / len(runs)
        return Finding(
            verdict, part, text, share, low, high, len(runs), source=bench.note(own), runs=runs
        )
