"""A claim judged in every study that has runs for it, and the verdict over all studies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from orthocond.artifacts.timing_artifacts import Timing
from orthocond.config.tasks import TASKS
from orthocond.report.commands import MissingRuns
from orthocond.report.ledger.evidence import Bench, Claim, Criterion, Finding
from orthocond.report.ledger.regime_rule import within_regime
from orthocond.report.ledger.verdicts import Verdict, together
from orthocond.report.regimes import Regime, regimes
from orthocond.report.study import Study

Scope = tuple[str | None, str | None]
"""Task and data set of the paper that a part of a claim is about; None stands for any."""


@dataclass(frozen=True)
class Judged:
    """Finding for a part of a claim in one study.

    Args:
        part: place of the part in the claim.
        scope: task and data set that the part is about.
        study: name of the study; empty for a part that is not judged by the runs of one study.
        finding: what was found.
    """

    part: int
    scope: Scope
    study: str
    finding: Finding


def over_studies(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict over studies from the verdict of each.

    Studies that cannot decide are no contradiction to those that do.

    Example:
        >>> print(over_studies([Verdict.HOLDS, Verdict.OPEN, Verdict.ABSENT]))
        holds
        >>> print(over_studies([Verdict.HOLDS, Verdict.FAILS]))
        studies disagree
    """
    found = list(dict.fromkeys(verdicts))
    decided = [v for v in found if v in (Verdict.HOLDS, Verdict.FAILS, Verdict.SPLIT)]
    if decided:
        return decided[0] if len(decided) == 1 else Verdict.SPLIT
    undecided = [Verdict.OPEN, Verdict.REGIME, *found]
    return next((v for v in undecided if v in found and v is not Verdict.ABSENT), Verdict.ABSENT)


def with_all_measures(found: Mapping[str, Finding]) -> dict[str, Finding]:
    """Return the findings of a part of a claim by study, not comparable where measures are missing.

    Where two measures contradict each other in a study, the verdict of a study that has only one of
    them would depend on which one it has. So it is not comparable either.
    """
    contradicting = {
        frozenset(finding.measures): name
        for name, finding in found.items()
        if finding.verdict is Verdict.INCOMPARABLE and len(finding.measures) > 1
    }
    checked = dict(found)
    for name, finding in found.items():
        for measures, study in contradicting.items():
            if finding.measures and measures > set(finding.measures):
                reason = f"In {study} this measure contradicts the one at a common rank"
                beside = ". ".join(filter(None, (finding.beside, reason)))
                checked[name] = replace(finding, verdict=Verdict.INCOMPARABLE, beside=beside)
    return checked


def verdict_in(judged: Iterable[Judged], study: str) -> Verdict | None:
    """Return the verdict on a claim in one study; None where the study says nothing about it."""
    own = [j.finding.verdict for j in judged if j.study == study]
    return together(own) if own else None


def verdict_over(judged: Iterable[Judged]) -> Verdict:
    """Return the verdict on a claim over all studies.

    The parts about one task and data set are judged together in each study. The claim holds if
    they hold over the studies for every task and data set.
    """
    judged = list(judged)
    verdicts = []
    for scope in dict.fromkeys(j.scope for j in judged):
        own = [j for j in judged if j.scope == scope]
        studies = dict.fromkeys(j.study for j in own)
        verdicts.append(over_studies(v for s in studies if (v := verdict_in(own, s))))
    return together(verdicts)


class Court:
    """The studies of a folder, each with a bench of its own.

    Args:
        study: the runs; a folder without runs is allowed.
        timings: timings besides those in the folder, such as those of another device.
    """

    def __init__(self, study: Study, timings: Iterable[Timing] = ()) -> None:
        self.study = study
        self.bench = Bench(study, timings)
        """The bench of all studies, which takes the largest study of each data set."""

    @cached_property
    def regimes(self) -> dict[str, dict[str, Regime]]:
        """The regime of every study, by task and name."""
        return {task: regimes(self.study, task) for task in TASKS}

    @cached_property
    def _mains(self) -> dict[str, str]:
        """The name of the study that stands for a task, for each task with finished runs."""
        mains = {}
        for task in TASKS:
            with suppress(MissingRuns):  # no runs, or all of them diverged
                mains[task] = self.study.select(task).study
        return mains

    @cached_property
    def benches(self) -> dict[tuple[str, str], Bench]:
        """A bench for each task and study; it has the main studies of the other tasks too."""
        benches = {}
        for task, found in self.regimes.items():
            for name in found:
                others = [main for other, main in self._mains.items() if other != task]
                benches[task, name] = Bench(self.study.only(name, *others))
        return benches

    def _in_studies(self, part: Criterion, scope: Scope) -> Iterator[tuple[str, Finding]]:
        """Yield each study that a part can be judged in, with the finding there."""
        for (task, name), bench in self.benches.items():
            if task != scope[0]:
                continue
            try:
                bench.selection(task, scope[1])
            except MissingRuns:
                continue
            yield name, within_regime(part, part.judge(bench), [self.regimes[task][name]])

    def judge(self, claim: Claim) -> list[Judged]:
        """Return the findings for every part of a claim, in each study that has its runs.

        A part that names no task, or that no study can judge, has one finding without a study.
        """
        judged = []
        for place, part in enumerate(claim.parts):
            scope = getattr(part, "task", None), getattr(part, "data", None)
            found = with_all_measures(dict(self._in_studies(part, scope)))
            if not found:
                mains = [self.regimes[t][n] for t, n in self._mains.items() if n in self.regimes[t]]
                found = {"": within_regime(part, part.judge(self.bench), mains)}
            judged += [Judged(place, scope, name, finding) for name, finding in found.items()]
        return judged

    def commands(self, judged: Iterable[Judged]) -> list[str]:
        """Return the commands that make the runs that a part lacks in every study."""
        judged = list(judged)
        lacking = []
        for place in dict.fromkeys(j.part for j in judged):
            own = [j for j in judged if j.part == place]
            if all(j.finding.verdict is Verdict.ABSENT for j in own):
                lacking.append(own[0].finding)
        commands = self.bench.commands(need for finding in lacking for need in finding.needs)
        return list(dict.fromkeys([*commands, *(f.command for f in lacking if f.command)]))
