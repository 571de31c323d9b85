"""A claim that compares what a treatment does in the two tasks."""

from __future__ import annotations

from dataclasses import dataclass

from orthocond.report.bench import ENOUGH, Bench, Finding, absent, numbers, too_few
from orthocond.report.criteria import Compared
from orthocond.report.readings import MEASURES
from orthocond.report.study import MissingRuns
from orthocond.report.style import label
from orthocond.report.verdicts import Verdict


@dataclass(frozen=True)
class LessImproved:
    """A treatment reduces log10 of kappa by less in GCP than in decorrelated BN.

    The runs of two tasks have no pairs, so the two intervals must not meet.

    Args:
        method: canonical name, compared with plain SVD in each task.
    """

    method: str

    def judge(self, bench: Bench) -> Finding:
        """By the intervals of both differences."""
        measure = MEASURES["support"]
        part = f"{measure.name}, {label(self.method)} against SVD, claimed GCP > decorrelated BN"
        found, sources = [], []
        for task in ("gcp", "dbn"):
            compared = Compared(self.method, measure="support", task=task)
            try:
                own = bench.selection(task)
            except MissingRuns as missing:
                return absent(part, missing, compared.needs)
            sources.append(bench.note(own))
            found.append(compared.difference(bench, "support"))
            if found[-1].n < ENOUGH:
                return too_few(part, sources[-1], own, compared.needs)
        gcp, dbn = found
        apart = gcp.low > dbn.high or gcp.high < dbn.low
        verdict = Verdict.HOLDS if gcp.low > dbn.high else Verdict.FAILS if apart else Verdict.OPEN
        text = f"GCP {numbers(gcp, '')}; decorrelated BN {numbers(dbn, '')}"
        return Finding(verdict, part, text, n=min(gcp.n, dbn.n), source="; ".join(sources))
