"""Summary of the ledger: three groups of claims, each with what was found in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd

from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN, GCP
from orthocond.report.ledger.derived_claims import Derived
from orthocond.report.ledger.evidence import Claim
from orthocond.report.ledger.regime_rule import GAP
from orthocond.report.ledger.time_claims import Timed
from orthocond.report.ledger.verdicts import TENTH, Verdict
from orthocond.report.statistics import LEVEL
from orthocond.report.style import label

MATHEMATICS, CONDITIONING, ACCURACY = "mathematics", "conditioning", "accuracy and cost"
GROUPS = (MATHEMATICS, CONDITIONING, ACCURACY)
TREATMENTS = (
    "svd+sn", "svd+ol", "svd+ow", "svd+nog", "svd+olr", "svd+nog+ow", "svd+nog+ow+olr",
)  # fmt: skip
DERIVED = (
    "What the paper says of orthogonal weights and of the nearest orthogonal gradient holds, "
    "except that the direction of descent does change. If weight and gradient are both orthogonal, "
    "the optimal learning rate is bounded: the stated upper bound holds, and the lower one does "
    "not. Over all weights and gradients it is unbounded, and without its switch training may be "
    "unstable. Dividing a weight by its norm does not change a condition number"
)
"""What was found in mathematics; the derivations are in the book, and no run can change it."""
JUDGED = (Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN)
SAID = {
    Verdict.HOLDS: ("holds", "hold"),
    Verdict.FAILS: ("does not hold", "do not hold"),
    Verdict.SPLIT: ("on which studies or devices disagree",) * 2,
}
"""Verdicts that read differently after a number of claims: after one, and after several."""
DECIDED = ("lower", "not lower", "higher")
NOTES = {
    CONDITIONING: f"Only a change by a factor of {10**TENTH:.2f} (a tenth of a decade) or more "
    "counts. κ is the condition number of the nonzero eigenvalues; between different ranks we "
    "compare κ with ε",
    ACCURACY: f"Only studies in which plain SVD has a generalisation gap of {GAP:g} points or more "
    "count",
}
NO_GAP = "not judged, for lack of a generalisation gap"
VERBS = {
    "lower": ("lowers {}", "lower {}"),
    "not lower": ("does not lower {}", "do not lower {}"),
    "higher": ("raises {}", "raise {}"),
    "different between studies": ("differs between studies", "differ between studies"),
}
"""Effects, as verbs of one treatment and of several, with a place for their object. Other effects
are participles ("undecided")."""


class Group(NamedTuple):
    """A group of claims.

    Args:
        name: one of ``GROUPS``.
        counts: verdict -> number of claims; verdicts without a claim are left out.
        found: what was found, in words without the last full stop.
    """

    name: str
    counts: dict[str, int]
    found: str


def group_of(claim: Claim) -> str:
    """Return the group of a claim, from what its parts are about.

    A claim about conditioning and accuracy counts as one about accuracy.
    """
    if all(isinstance(part, Derived) for part in claim.parts):
        return MATHEMATICS
    about = [getattr(part, "measure", "") for part in claim.parts]
    timed = any(isinstance(part, Timed) for part in claim.parts)
    return ACCURACY if timed or "error" in about else CONDITIONING


def _effect(row: pd.Series, margin: float) -> str:
    """Return in words what a comparison with plain SVD found."""
    if row["part verdict"] == Verdict.REGIME:
        return NO_GAP
    if row["part verdict"] not in map(str, JUDGED):
        return str(row["part verdict"])
    if not np.isnan(row["p"]) and row["p"] >= LEVEL:
        return "undecided"
    if row["high"] < -margin:
        return "lower"
    if margin and row["low"] > -margin:
        return "not lower"
    return "higher" if row["low"] > 0 else "undecided"


def _effects(frame: pd.DataFrame, task: str, measure: str, margin: float) -> dict[str, list[str]]:
    """Return the treatments by their effect against plain SVD in one task, most decided first.

    A treatment is named with the number of studies that show its effect if others are undecided
    or do not have it.
    """
    own = frame[(frame["task"] == task) & (frame["measure"] == measure)]
    own = own[(own["baseline"] == PLAIN) & own["control"].isna()]
    found: dict[str, list[str]] = {}
    for method in TREATMENTS:
        rows = own[own["method"] == method]
        if (tested := rows["p"].notna()).any():  # in the primary family: only an adjusted p decides
            rows = rows[tested]
        effects = [_effect(row, margin) for _, row in rows.drop_duplicates("study").iterrows()]
        if not effects:
            continue
        effects.sort(key=lambda effect: effect != "undecided")
        decided, name = [e for e in effects if e in DECIDED], label(method).removeprefix("SVD + ")
        judged = len(decided) + effects.count("undecided")
        if len(set(decided)) > 1:
            decided = ["different between studies"]
        elif decided and len(decided) < judged:
            name += f" (in {len(decided)} of {judged} studies)"
        elif len(decided) == 1 < own["study"].nunique():
            name += " (in one study)"
        found.setdefault((decided or effects)[0], []).append(name)
    order = sorted(found, key=lambda effect: (effect != "lower", effect == "undecided"))
    return {effect: found[effect] for effect in order}


def _clauses(effects: dict[str, list[str]], what: str) -> str:
    """Return effects in words.

    Example:
        >>> _clauses({"lower": ["OL", "OW"], "not lower": ["SN"], "undecided": ["OLR"]}, "κ")
        'OL and OW lower κ, SN does not lower it, and OLR is undecided'
    """
    clauses = []
    for effect, names in effects.items():
        one, several = VERBS.get(effect, (f"is {effect}", f"are {effect}"))
        verb = (one if len(names) == 1 else several).format(what)
        if effect in DECIDED:
            what = "it"
        clauses.append(f"{_and(names)} {verb}")
    *most, last = clauses
    return f"{', '.join(most)}, and {last}" if most else last


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _sentence(group: str, frame: pd.DataFrame) -> str:
    if group == MATHEMATICS:
        return DERIVED
    kappa = group == CONDITIONING
    measure, margin, what = ("support", TENTH, "κ") if kappa else ("error", 0.0, "the error")
    parts = [
        f"in {task.label}, {_clauses(effects, what)}"
        for task in (DBN, GCP)
        if (effects := _effects(frame, task.name, measure, margin))
    ]
    if not parts:
        return "There are no runs yet"
    return f"Compared with plain SVD: {'; '.join(parts)}. {NOTES[group]}"


def groups(frame: pd.DataFrame) -> list[Group]:
    """Return the three groups with their counts and what was found.

    Args:
        frame: table from ``ledger.build``.
    """
    claims = frame.drop_duplicates("number")
    found = []
    for name in GROUPS:
        counts = claims.loc[claims["group"] == name, "verdict"].value_counts()
        said = {str(v): int(counts[str(v)]) for v in Verdict if str(v) in counts}
        found.append(Group(name, said, _sentence(name, frame)))
    return found


def to_markdown(frame: pd.DataFrame) -> str:
    """Return one item per group: its counts, and what was found."""
    items = []
    for group in groups(frame):
        counts = ", ".join(
            f"{count} {SAID.get(Verdict(verdict), (verdict, verdict))[count != 1]}"
            for verdict, count in group.counts.items()
        )
        total = sum(group.counts.values())
        items.append(f"- **{group.name.capitalize()}** ({total} claims: {counts}). {group.found}.")
    return "\n".join(items)


def to_html(frame: pd.DataFrame, page: str) -> str:
    """Return an HTML table with a row per verdict and a column per group, with links to claims.

    The sentences on what was found are above the numbers.

    Args:
        frame: table from ``ledger.build``.
        page: address of the page that shows ``ledger.to_html``.
    """
    claims, own = frame.drop_duplicates("number"), groups(frame)
    head = "".join(f"<th>{group.name.capitalize()}</th>" for group in own)
    rows = ["".join(f"<td>{escape(group.found)}.</td>" for group in own)]
    rows[0] = f'<tr style="vertical-align: top"><td>What was found</td>{rows[0]}</tr>'
    for verdict in map(str, Verdict):
        cells = []
        for name in GROUPS:
            some = claims[(claims["verdict"] == verdict) & (claims["group"] == name)]
            links = " ".join(
                f'<a href="{page}#claim-{number}" title="{escape(claim)}">{number}</a>'
                for number, claim in zip(some["number"], some["claim"], strict=True)
            )
            cells.append(f"<td>{f'<b>{len(some)}</b>: {links}' if len(some) else ''}</td>")
        if any(cell != "<td></td>" for cell in cells):
            rows.append(f"<tr><td><b>{verdict}</b></td>{''.join(cells)}</tr>")
    body = "".join(rows)
    return f"<table><thead><tr><th>Verdict</th>{head}</tr></thead><tbody>{body}</tbody></table>"
