"""Criteria that compare methods by the recorded runs of one task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from orthocond.artifacts.run_reader import Run
from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN, TASKS
from orthocond.report.commands import MissingRuns
from orthocond.report.ledger.evidence import ENOUGH, STAND_INS, Bench, Finding, Need, numbers
from orthocond.report.ledger.readings import MEASURES, comparable, in_words, ranks, rounding
from orthocond.report.ledger.verdicts import BELOW, Verdict, agreed, of_size, on_side
from orthocond.report.statistics import Contrast, Difference, paired, smallest_detectable
from orthocond.report.studies.selection import Selection
from orthocond.report.style import label


def about(measures: Iterable[str], task: str, data: str | None = None) -> str:
    """Return the names of measures, with the task if it is not the first, and the data set.

    Where other images may take the place of the paper's, they are named by their classes.

    Example:
        >>> about(["error"], "gcp", "CIFAR100")
        'GCP, error on a hundred classes'
    """
    data = "a hundred classes" if data in STAND_INS else data
    where = "" if task == DBN.name else f"{TASKS[task].short_label}, "
    names = " and ".join(MEASURES[measure].name for measure in measures)
    return f"{where}{names}" + (f" on {data}" if data else "")


class RunCriterion(ABC):
    """Criterion that is judged from the runs of one task."""

    method: str
    measure: str
    task: str
    data: str | None = None

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

    Where the ranks of the two methods differ, kappa is compared by ``Measure.across``.
    """

    method: str
    baseline: str = PLAIN
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
        return self._part(self.measure)

    def _part(self, *measures: str) -> str:
        sign = "<" if self.side == BELOW else ">"
        limit = f"{sign} {self.bound:g}".replace("-", "−")
        if self.size is not None:
            limit += f", by {self.size:g}"
        stem = f" with a {self.control}×{self.control} stem" if self.control else ""
        against = f"{label(self.method)} against {label(self.baseline)}{stem}"
        return f"{about(measures, self.task, self.data)}, {against}, claimed {limit}"

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

    def _found(self, found: Mapping[str, Difference], p: float | None) -> str:
        """Return the numbers in words, with the measure's name if there are several measures."""
        named = {key: numbers(d, MEASURES[key].unit, p) for key, d in found.items()}
        if len(named) == 1:
            return next(iter(named.values()))
        return "; ".join(f"{MEASURES[key].name}: {text}" for key, text in named.items())

    def _beside(self, bench: Bench, key: str, verdict: Verdict | None = None) -> str:
        found = self.difference(bench, key)
        if found.n < ENOUGH:
            return ""
        measure = MEASURES[key]
        said = verdict or self._verdict(found, None)
        return f"{measure.name}: {numbers(found, measure.unit)}: {said}"

    def _notes(
        self, bench: Bench, keys: tuple[str, ...], runs: Mapping[str, tuple[Run, ...]]
    ) -> str:
        """Return what is shown next to the numbers, in words."""
        measure, notes = MEASURES[self.measure], []
        if keys != (self.measure,):
            each = ", ".join(f"{in_words(ranks(own))} of {label(m)}" for m, own in runs.items())
            not_comparable = self._beside(bench, self.measure, Verdict.INCOMPARABLE)
            notes.append(f"{not_comparable} (rank {each})")
        if measure.beside:
            notes.append(self._beside(bench, measure.beside))
        if "κ" in measure.name:
            notes.append(rounding(runs))
        return ". ".join(note for note in notes if note)

    def find(self, bench: Bench, own: Selection) -> Finding | None:
        """Judge the claim by the mean difference over equal seeds and its interval."""
        if self.difference(bench, self.measure).n < ENOUGH:
            return None
        treated = own.runs.get(self.method, ())
        base = bench.base(self.contrast, self.task, self.data)
        keys = comparable(self.measure, treated, base, TASKS[self.task].has_eps)
        found = {key: self.difference(bench, key) for key in keys or (self.measure,)}
        p = None
        if self.measure == "error":
            p = bench.adjusted(self.contrast, self.task, self.data)
        verdicts = [self._verdict(difference, p) for difference in found.values()]
        first = next(iter(found.values()))
        return Finding(
            agreed(verdicts) if keys else Verdict.INCOMPARABLE,
            self._part(*found),
            self._found(found, p),
            first.mean,
            first.low,
            first.high,
            first.n,
            np.nan if p is None else p,
            smallest_detectable(first.std, first.n),
            tuple(found),
            self._notes(bench, keys, {self.method: treated, self.baseline: base}),
            bench.note(own),
            (*treated, *base),
        )


@dataclass(frozen=True)
class Given:
    """Criterion on something that a sentence explains, or says to be gone.

    Where our runs do not have what is explained, they do not decide the claim.

    Args:
        premise: criterion for what is explained.
        explanation: criterion for the explanation.
    """

    premise: RunCriterion
    explanation: RunCriterion

    @property
    def task(self) -> str:
        """The task of the explanation."""
        return self.explanation.task

    @property
    def data(self) -> str | None:
        """The data set of the explanation."""
        return self.explanation.data

    @property
    def measure(self) -> str:
        """The measure of the explanation."""
        return self.explanation.measure

    def judge(self, bench: Bench) -> Finding:
        """Judge the explanation where the premise holds."""
        ground, own = self.premise.judge(bench), self.explanation.judge(bench)
        verdict = own.verdict if ground.verdict is Verdict.HOLDS else ground.verdict
        said = f"It explains {ground.part}: {ground.found}: {ground.verdict}"
        return replace(
            own,
            verdict=Verdict.OPEN if ground.verdict is Verdict.FAILS else verdict,
            beside=". ".join(filter(None, (said, own.beside))),
            runs=(*own.runs, *ground.runs),
            needs=(*own.needs, *ground.needs),
        )
