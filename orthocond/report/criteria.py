"""What a claim says of the runs, in a form that can be judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from orthocond.report.bench import ENOUGH, Bench, Finding, Need, judged, numbers
from orthocond.report.readings import MEASURES, Measure, rounding
from orthocond.report.statistics import (
    Contrast,
    Difference,
    difference,
    paired,
    smallest_detectable,
)
from orthocond.report.study import Selection
from orthocond.report.style import label
from orthocond.report.verdicts import BELOW, Verdict, near, of_size, often, on_side
from orthocond.runs import Run


def about(measure: Measure, task: str, data: str | None = None) -> str:
    """What is read, and of which task and data where that is not the main study."""
    return f"{'GCP, ' * (task == 'gcp')}{measure.name}" + (f" on {data}" if data else "")


@dataclass(frozen=True)
class Compared:
    """Two methods differ, over equal seeds, to the claimed side of a bound or by a claimed size.

    Args:
        method: canonical name.
        baseline: canonical name.
        measure: of ``MEASURES``.
        side: ``BELOW`` or ``ABOVE``.
        bound: what the difference is claimed to be below or above of.
        size: claimed for the difference, without its sign; None where only a side is claimed.
        control: width of the baseline's stem where it differs.
        task: ``dbn`` or ``gcp``.
        data: the paper's data set that is spoken of; None takes the one with most runs.
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
        """The two methods."""
        return Contrast(self.method, self.baseline, self.control)

    @property
    def needs(self) -> tuple[Need, Need]:
        """The runs of both."""
        return (
            Need(self.task, self.data, None, self.method),
            Need(self.task, self.data, self.control, self.baseline),
        )

    def part(self, measure: Measure) -> str:
        """In words."""
        sign = "<" if self.side == BELOW else ">"
        limit = f"{sign} {self.bound:g}".replace("-", "−")
        if self.size is not None:
            limit += f", by {self.size:g}"
        stem = f" with a {self.control}×{self.control} stem" if self.control else ""
        against = f"{label(self.method)} against {label(self.baseline)}{stem}"
        return f"{about(measure, self.task, self.data)}, {against}, claimed {limit}"

    def difference(self, bench: Bench, measure: str) -> Difference:
        """Of one measure.

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
        """By the difference over equal seeds."""
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
    """One method's number is near a level, or on one side of it.

    Args:
        method: canonical name.
        value: claimed; log10 of a condition number.
        measure: of ``MEASURES``.
        side: ``BELOW`` or ``ABOVE`` it; None where the number is claimed to be near it.
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
        """By the mean over the seeds."""
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
    """Something happens in more than half of a method's runs: a number of theirs is above 0."""

    method: str
    measure: str = "failures"
    task: str = "gcp"

    def judge(self, bench: Bench) -> Finding:
        """By the share of the runs."""
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
