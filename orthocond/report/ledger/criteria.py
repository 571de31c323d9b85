"""Criteria that test a claim against recorded runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from orthocond.artifacts.run_writer import Run
from orthocond.config.tasks import DBN, GCP, TASKS
from orthocond.report.ledger.evidence import ENOUGH, Bench, Finding, Need, numbers
from orthocond.report.ledger.readings import MEASURES, Measure, rounding
from orthocond.report.ledger.verdicts import BELOW, Verdict, near, of_size, often, on_side
from orthocond.report.statistics import (
    Contrast,
    Difference,
    difference,
    paired,
    smallest_detectable,
)
from orthocond.report.study import MissingRuns, Selection
from orthocond.report.style import label


def about(measure: str, task: str, data: str | None = None) -> str:
    """Return a measure's name, with the task if it is not the first, and the data set if given."""
    where = "" if task == DBN.name else f"{TASKS[task].short_label}, "
    return f"{where}{MEASURES[measure].name}" + (f" on {data}" if data else "")


class RunCriterion(ABC):
    """Criterion that is judged from the runs of one task."""

    method: str
    measure: str
    task: str

    @property
    @abstractmethod
    def part(self) -> str:
        """What is compared and what the paper claims about it, in words."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The runs that are required; the first gives the task and the data set."""
        return (Need(self.task, None, None, self.method),)

    @abstractmethod
    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the runs of the task; return None where there are too few."""

    def judge(self, bench: Bench) -> Finding:
        """Return the finding from the required runs, or one that names the missing runs."""
        needs = self.needs
        try:
            own = bench.selection(needs[0].task, needs[0].data)
        except MissingRuns as missing:
            return Finding(Verdict.ABSENT, self.part, str(missing), needs=needs)
        return self.find(bench, own) or self._too_few(bench, own)

    def _too_few(self, bench: Bench, own: Selection) -> Finding:
        """Return the finding for fewer than two pairs, which needs more runs of some methods."""
        needs = [n for n in self.needs if n.control or len(own.runs.get(n.method, ())) < ENOUGH]
        found = [f"fewer than {ENOUGH} pairs of runs"]
        for need in needs:
            lost = own.diverged.get(need.method)
            if lost and not need.control:
                found.append(f"{lost} of {label(need.method)} diverged")
        text, source = "; ".join(found), bench.note(own)
        return Finding(Verdict.ABSENT, self.part, text, source=source, needs=tuple(needs))


@dataclass(frozen=True)
class Compared(RunCriterion):
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
    task: str = DBN.name
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

    @property
    def part(self) -> str:
        """The two methods and the claimed side or size of their difference, in words."""
        sign = "<" if self.side == BELOW else ">"
        limit = f"{sign} {self.bound:g}".replace("-", "−")
        if self.size is not None:
            limit += f", by {self.size:g}"
        stem = f" with a {self.control}×{self.control} stem" if self.control else ""
        against = f"{label(self.method)} against {label(self.baseline)}{stem}"
        return f"{about(self.measure, self.task, self.data)}, {against}, claimed {limit}"

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

    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the claim by the mean difference over equal seeds and its interval."""
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
            self.part,
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
class Level(RunCriterion):
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
    task: str = DBN.name

    def _of(self, runs: Iterable[Run], measure: Measure) -> Difference:
        values = np.array([measure.reading(run) for run in runs], dtype=float)
        values = values[np.isfinite(values)]
        return difference(values, np.full(len(values), self.value))

    @property
    def part(self) -> str:
        """The method and its claimed level, in words."""
        sign = {None: "≈", BELOW: "<"}.get(self.side, ">")
        where = about(self.measure, self.task)
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
class Often(RunCriterion):
    """Criterion: a measure is above 0 in more than half of a method's runs."""

    method: str
    measure: str = "failures"
    task: str = GCP.name

    @property
    def part(self) -> str:
        """The method and the claim on the share of its runs, in words."""
        return f"{about(self.measure, self.task)}, {label(self.method)}, claimed > 0 in most runs"

    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the claim by the share of runs in which the measure is above 0."""
        measure, runs = MEASURES[self.measure], own.runs.get(self.method, ())
        if len(runs) < ENOUGH:
            return None
        times = sum((measure.reading(run) or 0) > 0 for run in runs)
        verdict, low, high = often(times, len(runs))
        text = f"{times} of {len(runs)} runs; share between {low:.2f} and {high:.2f}"
        share = times / len(runs)
        return Finding(
            verdict, self.part, text, share, low, high, len(runs), source=bench.note(own), runs=runs
        )


@dataclass(frozen=True)
class LessImproved:
    """Criterion: a treatment reduces log10 of kappa less in GCP than in decorrelated BN.

    Runs of different tasks cannot be paired by seed. The claim is therefore decided only where
    the 95% intervals of the two tasks do not overlap.

    Args:
        method: canonical name of the treated method; each task compares it with plain SVD.
    """

    method: str

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the intervals of the differences in both tasks."""
        names = [task.short_label for task in (GCP, DBN)]
        against = f"{label(self.method)} against {label('svd')}, claimed {' > '.join(names)}"
        part = f"{MEASURES['support'].name}, {against}"
        findings = []
        for task in (GCP, DBN):
            own = Compared(self.method, measure="support", task=task.name).judge(bench)
            if own.verdict is Verdict.ABSENT:
                return replace(own, part=part)
            findings.append(own)
        gcp, dbn = findings
        apart = gcp.low > dbn.high or gcp.high < dbn.low
        verdict = Verdict.HOLDS if gcp.low > dbn.high else Verdict.FAILS if apart else Verdict.OPEN
        text = "; ".join(f"{name} {f.found}" for name, f in zip(names, findings, strict=True))
        source = f"{gcp.source}; {dbn.source}"
        return Finding(verdict, part, text, n=min(gcp.n, dbn.n), source=source)
