"""Ledger table: every claim of the paper with its verdict, from the runs of a study."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from orthocond.artifacts.run_writer import Run
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.evidence import Bench, Claim, Finding
from orthocond.report.ledger.verdicts import Verdict, together
from orthocond.report.provenance import Numbers, Provenance, Source
from orthocond.report.study import Study

NUMBERS = ("mean", "low", "high", "n", "p", "detectable")


def _row(number: int, claim: Claim, verdict: Verdict, finding: Finding) -> dict[str, object]:
    return {
        "number": number,
        "place": claim.section,
        "claim": claim.quote,
        "reading": claim.reading,
        "verdict": str(verdict),
        "part": finding.part,
        "part verdict": str(finding.verdict),
        "found": finding.found,
        **{name: getattr(finding, name) for name in NUMBERS},
        "beside": finding.beside,
        "runs": finding.source,
        "evidence": " ".join(claim.evidence),
        "command": "",
    }


def build(study: Study) -> Numbers:
    """Judge every claim of the paper.

    Args:
        study: the runs; a study without runs is allowed.

    Returns:
        One row per part of a claim, in the paper's order. Columns number, place, claim (the
        quote), reading, verdict (on the claim), part, part verdict, found, mean, low, high, n, p,
        detectable, beside, runs, evidence, command (makes what is missing; only in the first row
        of a claim).
        The note says how many claims have each verdict.

    Raises:
        CorruptRun: a run was altered.
    """
    bench, rows = Bench(study), []
    runs: dict[Path, Run] = {}
    for number, claim in enumerate(CLAIMS, 1):
        findings = [part.judge(bench) for part in claim.parts]
        verdict = together(finding.verdict for finding in findings)
        own = [_row(number, claim, verdict, finding) for finding in findings]
        commands = bench.commands(need for finding in findings for need in finding.needs)
        commands += [finding.command for finding in findings if finding.command]
        own[0]["command"] = "\n".join(dict.fromkeys(commands))
        rows += own
        runs |= {run.path: run for finding in findings for run in finding.runs}
    frame = pd.DataFrame(rows)
    counts = frame.drop_duplicates("number")["verdict"].value_counts()
    said = ", ".join(f"{counts.get(str(v), 0)} {v}" for v in Verdict)
    sources = tuple(Source.of(run) for run in runs.values())
    return Numbers(frame, Provenance(f"{len(CLAIMS)} claims: {said}", runs=sources))


def _part(row: pd.Series) -> str:
    verdict = row["part verdict"]
    text = f"<b>{escape(verdict)}</b>: {escape(row['part'])}: {escape(row['found'])}."
    if verdict == Verdict.OPEN and not np.isnan(row["detectable"]):
        text += f" These seeds would show {row['detectable']:.2g}."
    return text + (f"<br><small>{escape(row['beside'])}.</small>" if row["beside"] else "")


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _parts(rows: pd.DataFrame) -> str:
    """Show a single part openly; fold several parts under the number of parts per verdict."""
    if len(rows) == 1:
        return f"<div>{_part(rows.iloc[0])}</div>"
    counts = rows["part verdict"].value_counts()
    said = ", ".join(f"{counts[v]} {v}" for v in map(str, Verdict) if v in counts)
    items = "".join(f"<li>{_part(row)}</li>" for _, row in rows.iterrows())
    return _folded(f"{len(rows)} parts: {said}", f"<ul>{items}</ul>")


def _claim(rows: pd.DataFrame, link: Callable[[str], str]) -> str:
    first = rows.iloc[0]
    number, verdict = first["number"], Verdict(first["verdict"])
    links = " ".join(link(name) for name in first["evidence"].split())
    text = f"“{escape(first['claim'])}” <small>({escape(first['place'])})</small>"
    if first["reading"]:
        text += f"<br><small>Read as: {escape(first['reading'])}.</small>"
    text += f"{_parts(rows)}<small>{links}"
    sources = "; ".join(dict.fromkeys(source for source in rows["runs"] if source))
    text += f". {escape(sources)}.</small>" if sources else "</small>"
    if first["command"]:
        text += _folded(
            "Runs that are missing",
            f'<pre style="white-space: pre-wrap">{escape(first["command"])}</pre>',
        )
    cells = "".join(f"<td>{cell}</td>" for cell in (number, f"<b>{escape(verdict)}</b>", text))
    return f'<tr id="claim-{number}" style="vertical-align: top">{cells}</tr>'


def summary_html(frame: pd.DataFrame, page: str) -> str:
    """Return an HTML table with one row per verdict and one link per claim.

    Args:
        frame: table from ``build``.
        page: address of the page that shows ``to_html``.
    """
    claims = frame.drop_duplicates("number")
    rows = []
    for verdict in map(str, Verdict):
        own = claims[claims["verdict"] == verdict]
        links = " ".join(
            f'<a href="{page}#claim-{number}" title="{escape(claim)}">{number}</a>'
            for number, claim in zip(own["number"], own["claim"], strict=True)
        )
        rows.append(f"<tr><td><b>{verdict}</b></td><td>{len(own)}</td><td>{links}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("Verdict", "Claims", "Which"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def to_html(frame: pd.DataFrame, link: Callable[[str], str]) -> str:
    """Return the ledger as an HTML table with one row per claim.

    Args:
        frame: table from ``build``.
        link: turns the name of a figure, table or equation into an HTML link.
    """
    head = "".join(f"<th>{name}</th>" for name in ("", "Verdict", "Claim and evidence"))
    body = "\n".join(_claim(rows, link) for _, rows in frame.groupby("number", sort=False))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
