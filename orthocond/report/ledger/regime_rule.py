"""Rule: a claim on generalisation is judged only in a study that has a generalisation gap.

Where plain SVD is as good on test images as on training images, a treatment has nothing to gain by
generalising better: its effect on the error is one on early optimisation. The threshold was
written down before the studies of few images began; the ledger has applied it, also to the three
earlier studies, since there were 15 runs of ``cifar10-few-h200``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orthocond.config.methods import PLAIN
from orthocond.report.ledger.evidence import Criterion, Finding
from orthocond.report.ledger.verdicts import Verdict
from orthocond.report.regimes import Regime

GAP = 5.0
"""Points between train and test accuracy of plain SVD from which a study decides such claims."""

GENERALISATION = ("error", "averaged")
"""Measures, by key of ``MEASURES``, in which a claim on generalisation is expressed."""

DECIDED = (Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN)


def has_gap(regime: Regime) -> bool:
    """Tell whether a study can decide claims on generalisation.

    Example:
        >>> has_gap(Regime("few", "leaves", "svd", 84.5, 67.8, 4992, 1755, 3, True))
        True
        >>> has_gap(Regime("all", "leaves", "svd", 71.3, 70.6, 44928, 1755, 5, False))
        False
    """
    return regime.method == PLAIN and regime.gap >= GAP


def within_regime(part: Criterion, finding: Finding, regimes: Iterable[Regime]) -> Finding:
    """Return a finding, without its verdict where the regime can't decide about generalisation.

    Args:
        part: criterion that was judged; the rule applies if its measure is an error.
        finding: its finding.
        regimes: regimes of the studies that were read.
    """
    if getattr(part, "measure", None) not in GENERALISATION or finding.verdict not in DECIDED:
        return finding
    short = [regime for regime in regimes if not has_gap(regime)]
    if not short:
        return finding
    gaps = ", ".join(f"{r.gap:.1f} points in {r.study}" for r in short)
    reason = f"The generalisation gap of plain SVD, {gaps}, is not {GAP:g} points or more"
    beside = ". ".join(filter(None, (finding.beside, reason)))
    return replace(finding, verdict=Verdict.REGIME, beside=beside)
