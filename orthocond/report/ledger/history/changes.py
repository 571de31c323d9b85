"""Verdicts that moved, by the rule that moved them, and the counts before and now.

The former verdicts are a record (``former_verdicts``), and the present ones come from the ledger.
So this list says what changed, and never what the result is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import pandas as pd

from orthocond.report.ledger.history.changed_rules import CHANGES, Change
from orthocond.report.ledger.history.former_verdicts import FORMER, Former, present
from orthocond.report.ledger.verdicts import Verdict


@dataclass(frozen=True)
class Moved:
    """A claim of the former ledger, and what has become of it.

    Args:
        former: the former claim.
        before: its verdict before a change.
        number: its present number.
        words: its present quote.
        now: its present verdict.
    """

    former: Former
    before: str
    number: int
    words: str
    now: str


def moved(change: Change, frame: pd.DataFrame) -> list[Moved]:
    """Return the claims that a changed rule judges, with their verdicts before and now.

    Args:
        change: one of ``CHANGES``.
        frame: table from ``ledger.build``.
    """
    claims = frame.drop_duplicates("number")
    numbers, quotes, verdicts = (list(claims[c]) for c in ("number", "claim", "verdict"))
    found = []
    for former in (f for f in FORMER if f.number in change.claims):
        at = present(former, quotes)[0]
        before = str(change.before.get(former.number, former.verdict))
        found.append(Moved(former, before, int(numbers[at]), quotes[at], verdicts[at]))
    return found


def by_runs(frame: pd.DataFrame) -> list[Moved]:
    """Return the claims whose verdict moved without a changed rule, because there are new runs."""
    ruled = {number for change in CHANGES for number in change.claims}
    others = tuple(former.number for former in FORMER if former.number not in ruled)
    every = moved(Change("", "", "", "", others), frame)
    return [claim for claim in every if claim.before != claim.now]


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the number of claims per verdict: in the former ledger, and in the present one."""
    now = frame.drop_duplicates("number")["verdict"].value_counts()
    before = pd.Series([str(former.verdict) for former in FORMER]).value_counts()
    rows = [
        {"verdict": str(v), "former rules": before.get(v, 0), "present rules": now.get(v, 0)}
        for v in map(str, Verdict)
    ]
    total = {"verdict": "all", "former rules": before.sum(), "present rules": now.sum()}
    return pd.DataFrame([*rows, total])


def _counted(verdicts: Iterable[str]) -> str:
    """Return the number of claims per verdict, in words."""
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).items())


def _listed(claims: Iterable[Moved], page: str) -> str:
    items = "".join(
        f'<li><a href="{page}#claim-{claim.number}">Claim {claim.number}</a>, '
        f"“{escape(claim.words)}”: {claim.before} → <b>{claim.now}</b></li>"
        for claim in claims
    )
    return f"<ul>{items}</ul>" if items else ""


def _section(change: Change, frame: pd.DataFrame, page: str) -> str:
    every = moved(change, frame)
    claims = [claim for claim in every if claim.before != claim.now]
    said = f"Claims that this rule judges: {len(every)}; verdicts that moved: {len(claims)}."
    if claims:
        before, now = (_counted(getattr(c, name) for c in claims) for name in ("before", "now"))
        said += f" Before: {before}. Now: {now}."
    return (
        f"<h3>{escape(change.title)} ({change.date})</h3><p>{escape(change.rule)} "
        f"<i>Reason:</i> {escape(change.reason)}</p><p>{said}</p>{_listed(claims, page)}"
    )


def to_html(frame: pd.DataFrame, page: str) -> str:
    """Return every changed rule with the verdicts that moved, from the present ledger.

    Claims that moved without a changed rule, because of new runs, are listed at the end.

    Args:
        frame: table from ``ledger.build``.
        page: address of the page that shows the ledger.
    """
    sections = [_section(change, frame, page) for change in CHANGES]
    if new := by_runs(frame):
        sections.append(f"<h3>Moved by new runs, not by a rule</h3>{_listed(new, page)}")
    return "".join(sections)
