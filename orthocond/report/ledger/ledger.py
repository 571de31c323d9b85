"""Ledger table: every claim of the paper with its verdict, from the runs of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.timing_artifacts import Timing
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.criteria import Compared
from orthocond.report.ledger.evidence import Claim
from orthocond.report.ledger.judging import Court, Judged, verdict_in, verdict_over
from orthocond.report.ledger.summary import group_of
from orthocond.report.ledger.verdicts import Verdict
from orthocond.report.provenance import Numbers, Provenance, Source, folded
from orthocond.report.study import Study

NUMBERS = ("mean", "low", "high", "n", "p", "detectable")
COMPARED = ("task", "measure", "method", "baseline", "control")


def _row(claim: Claim, judged: list[Judged], own: Judged, court: Court) -> dict[str, object]:
    finding, part = own.finding, claim.parts[own.part]
    found = court.regimes.get(str(own.scope[0]), {})
    return {
        "place": claim.section,
        "claim": claim.quote,
        "reading": claim.reading,
        "group": group_of(claim),
        "verdict": str(claim.listed_as or verdict_over(judged)),
        "study": own.study,
        "regime": found[own.study].line if own.study in found else "",
        "study verdict": str(verdict_in(judged, own.study)),
        **{name: getattr(part, name) if isinstance(part, Compared) else None for name in COMPARED},
        "part": finding.part,
        "part verdict": str(finding.verdict),
        "found": finding.found,
        **{name: getattr(finding, name) for name in NUMBERS},
        "beside": finding.beside,
        "runs": finding.source,
        "evidence": " ".join(claim.evidence),
        "command": "",
    }


def build(study: Study, timings: Iterable[Timing] = ()) -> Numbers:
    """Judge every claim of the paper.

    Args:
        study: the runs; a study without runs is allowed.
        timings: timings besides those in the folder, such as those of another device.

    Returns:
        One row per part of a claim and study, in the paper's order. Columns number, place, claim
        (the quote), reading, group, verdict (on the claim, over all studies), study (empty for a
        part that no single study decides), regime (its line), study verdict (on the claim, in this
        study), task, measure, method, baseline, control (of a part that compares two methods, as in
        ``Compared``), part, part verdict, found, mean, low, high, n, p, detectable, beside, runs,
        evidence, command (makes what is missing; only in the first row of a claim).
        The note says how many claims have each verdict; the remarks are the regimes.

    Raises:
        CorruptRun: a run was altered.
    """
    court, rows = Court(study, timings), []
    runs: dict[Path, Run] = {}
    for number, claim in enumerate(CLAIMS, 1):
        judged = court.judge(claim)
        own = [{"number": number} | _row(claim, judged, each, court) for each in judged]
        own[0]["command"] = "\n".join(court.commands(judged))
        rows += own
        runs |= {run.path: run for each in judged for run in each.finding.runs}
    frame = pd.DataFrame(rows)
    counts = frame.drop_duplicates("number")["verdict"].value_counts()
    said = ", ".join(f"{counts.get(str(v), 0)} {v}" for v in Verdict)
    sources = tuple(Source.of(run) for run in runs.values())
    lines = tuple(dict.fromkeys(line for line in frame["regime"] if line))
    return Numbers(frame, Provenance(f"{len(CLAIMS)} claims: {said}", lines, runs=sources))


def _part(row: pd.Series) -> str:
    verdict = row["part verdict"]
    text = f"<b>{escape(verdict)}</b>: {escape(row['part'])}: {escape(row['found'])}."
    if verdict == Verdict.OPEN and not np.isnan(row["detectable"]):
        text += f" These seeds would show {row['detectable']:.2g}."
    return text + (f"<br><small>{escape(row['beside'])}.</small>" if row["beside"] else "")


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _parts(study: str, rows: pd.DataFrame) -> str:
    """Show the parts in one study, under its name.

    A single part is open; several parts are folded under the number of parts per verdict.
    """
    head = f"{escape(study)}: " if study else ""
    if len(rows) == 1:
        return f"<div>{head}{_part(rows.iloc[0])}</div>"
    counts = rows["part verdict"].value_counts()
    said = ", ".join(f"{counts[v]} {v}" for v in map(str, Verdict) if v in counts)
    items = "".join(f"<li>{_part(row)}</li>" for _, row in rows.iterrows())
    return _folded(f"{head}{len(rows)} parts: {said}", f"<ul>{items}</ul>")


def _claim(rows: pd.DataFrame, studies: list[str], link: Callable[[str], str]) -> str:
    first = rows.iloc[0]
    number, verdict = first["number"], Verdict(first["verdict"])
    links = " ".join(link(name) for name in first["evidence"].split())
    text = f"“{escape(first['claim'])}” <small>({escape(first['place'])})</small>"
    if first["reading"]:
        text += f"<br><small>Read as: {escape(first['reading'])}.</small>"
    text += "".join(_parts(str(s), own) for s, own in rows.groupby("study", sort=False))
    text += f"<small>{links}</small>"
    sources = "; ".join(dict.fromkeys(source for source in rows["runs"] if source))
    text += folded([sources]) if sources else ""
    if first["command"]:
        text += _folded(
            "Runs that are missing",
            f'<pre style="white-space: pre-wrap">{escape(first["command"])}</pre>',
        )
    said = rows.drop_duplicates("study").set_index("study")["study verdict"]
    each = [f"<small>{escape(said.get(study, ''))}</small>" for study in studies]
    columns = (number, f"<b>{escape(verdict)}</b>", *each, text)
    cells = "".join(f"<td>{cell}</td>" for cell in columns)
    return f'<tr id="claim-{number}" style="vertical-align: top">{cells}</tr>'


def to_html(frame: pd.DataFrame, link: Callable[[str], str]) -> str:
    """Return the ledger as an HTML table with one row per claim and one column per study.

    The regimes of the studies are listed above the table.

    Args:
        frame: table from ``build``.
        link: turns the name of a figure, table or equation into an HTML link.
    """
    studies = [study for study in dict.fromkeys(frame["study"]) if study]
    names = ("", "Verdict over all studies", *map(escape, studies), "Claim and evidence")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "\n".join(_claim(rows, studies, link) for _, rows in frame.groupby("number", sort=False))
    lines = "".join(f"<li>{escape(x)}</li>" for x in dict.fromkeys(frame["regime"]) if x)
    regimes = f"<ul>{lines}</ul>" if lines else ""
    return f"{regimes}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
