"""Criterion that compares the effect of a treatment in the two tasks."""

from __future__ import annotations

from dataclasses import dataclass

from orthocond.report.ledger.criteria import Compared
from orthocond.report.ledger.evidence import ENOUGH, Bench, Finding, absent, numbers, too_few
from orthocond.report.ledger.readings import MEASURES
from orthocond.report.ledger.verdicts import Verdict
from orthocond.report.study import MissingRuns
from orthocond.report.style import label


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
