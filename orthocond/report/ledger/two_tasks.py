"""Criteria that compare the effect of a treatment in the two tasks.

Runs of different tasks cannot be paired by seed, so these criteria use the 95% intervals of both
tasks. A part that is not decidable in one of the tasks is not decidable here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orthocond.config.tasks import DBN, GCP
from orthocond.report.ledger.criteria import Compared
from orthocond.report.ledger.evidence import Bench, Finding
from orthocond.report.ledger.readings import MEASURES, ranks
from orthocond.report.ledger.verdicts import TENTH, Verdict
from orthocond.report.style import label

JUDGED = (Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN)


def _in_both(bench: Bench, method: str, measure: str) -> tuple[Finding, Finding]:
    """Return what is found for a treatment against plain SVD in covariance pooling and in BN."""
    gcp, dbn = (Compared(method, measure=measure, task=t.name).judge(bench) for t in (GCP, DBN))
    return gcp, dbn


def _joined(gcp: Finding, dbn: Finding, part: str, verdict: Verdict) -> Finding:
    """Return the finding of both tasks together."""
    eps = MEASURES["eps"].name
    said = [
        (f"{task.short_label}, {eps}," if "eps" in finding.measures else task.short_label, finding)
        for task, finding in ((GCP, gcp), (DBN, dbn))
    ]
    return Finding(
        verdict,
        part,
        "; ".join(f"{name} {finding.found}" for name, finding in said),
        n=min(gcp.n, dbn.n),
        beside=". ".join(f.beside for f in (gcp, dbn) if verdict is Verdict.INCOMPARABLE),
        source="; ".join(filter(None, (gcp.source, dbn.source))),
        runs=(*gcp.runs, *dbn.runs),
        needs=(*gcp.needs, *dbn.needs),
    )


def _unjudged(gcp: Finding, dbn: Finding) -> Verdict | None:
    """Return the verdict of a task that could not be judged; None if both could."""
    return next((f.verdict for f in (gcp, dbn) if f.verdict not in JUDGED), None)


@dataclass(frozen=True)
class LessImproved:
    """Criterion: a treatment reduces log10 of kappa less in GCP than in decorrelated BN.

    The claim is decided only where the intervals of the two tasks are apart, by at least ``TENTH``
    of a decade. It is not comparable where a treatment changes the rank in one of the tasks, unless
    both tasks have kappa at a common rank.

    Args:
        method: canonical name of the treated method; each task compares it with plain SVD.
    """

    method: str
    measure: ClassVar[str] = "support"

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the intervals of the differences in both tasks."""
        gcp, dbn = _in_both(bench, self.method, self.measure)
        against = f"{label(self.method)} against {label('svd')}"
        part = f"{MEASURES['support'].name}, {against}, claimed GCP > {DBN.short_label}"
        verdict = _unjudged(gcp, dbn)
        if verdict is None and any(len(ranks(finding.runs)) > 1 for finding in (gcp, dbn)):
            common = _in_both(bench, self.method, "common")
            if all(finding.n for finding in common):
                gcp, dbn = common
                part = part.replace(MEASURES["support"].name, MEASURES["common"].name)
            else:
                verdict = Verdict.INCOMPARABLE
        low, high = gcp.low - dbn.high, gcp.high - dbn.low
        if verdict is None:
            fails = Verdict.FAILS if high < TENTH else Verdict.OPEN
            verdict = Verdict.HOLDS if low > TENTH else fails
        return _joined(gcp, dbn, part, verdict)


@dataclass(frozen=True)
class SameSign:
    """Criterion: a treatment changes the error in the same direction in both tasks.

    Args:
        method: canonical name of the treated method; each task compares it with plain SVD.
    """

    method: str
    measure: ClassVar[str] = "error"

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the sides on which the intervals of both tasks lie."""
        gcp, dbn = _in_both(bench, self.method, self.measure)
        part = f"error, {label(self.method)} against {label('svd')}, claimed alike in both tasks"
        verdict = _unjudged(gcp, dbn)
        if verdict is None:
            same = Verdict.HOLDS if gcp.verdict is dbn.verdict else Verdict.FAILS
            verdict = Verdict.OPEN if Verdict.OPEN in (gcp.verdict, dbn.verdict) else same
        return _joined(gcp, dbn, part, verdict)
