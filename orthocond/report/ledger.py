"""The ledger: every claim of the paper with its verdict, from the runs of a study."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from orthocond.report.bench import Bench, Claim, Finding
from orthocond.report.claims import CLAIMS
from orthocond.report.study import Study
from orthocond.report.verdicts import Verdict, together
from orthocond.runs import Run

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


def build(study: Study) -> pd.DataFrame:
    """Judge every claim.

    Args:
        study: the runs; there may be none.

    Returns:
        One row a part of a claim, in the paper's order: number, place, claim (the quote), reading,
        verdict (on the claim), part, part verdict, found, mean, low, high, n, p, detectable,
        beside, runs, evidence, command (that makes what is missing, in a claim's first row).
        ``attrs`` has ``note`` (how many claims have each verdict) and ``runs``.

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
    frame.attrs["note"] = f"{len(CLAIMS)} claims: {said}"
    frame.attrs["runs"] = [
        {
            "run": run.name,
            "commit": run.environment.get("commit"),
            "config": run.config.get("hash"),
        }
        for run in runs.values()
    ]
    return frame


def _part(row: pd.Series) -> str:
    verdict = row["part verdict"]
    text = f"<b>{escape(verdict)}</b>: {escape(row['part'])}. {escape(row['found'])}."
    if verdict == Verdict.OPEN and not np.isnan(row["detectable"]):
        text += f" These seeds would show {row['detectable']:.2g}."
    beside = f"<br><small>{escape(row['beside'])}.</small>" if row["beside"] else ""
    return f"<li>{text}{beside}</li>"


def _claim(rows: pd.DataFrame, link: Callable[[str, bool], str]) -> str:
    first = rows.iloc[0]
    verdict = Verdict(first["verdict"])
    words = f"“{escape(first['claim'])}” <small>({escape(first['place'])})</small>"
    if first["reading"]:
        words += f"<br><small>Read as: {escape(first['reading'])}.</small>"
    parts = "".join(_part(row) for _, row in rows.iterrows())
    sources = "; ".join(dict.fromkeys(source for source in rows["runs"] if source))
    shown = verdict != Verdict.ABSENT
    links = " ".join(link(name, shown) for name in first["evidence"].split())
    under = f"<small>{links}{f'. {escape(sources)}' if sources else ''}.</small>"
    if first["command"]:
        under += f"<details><summary>Runs needed</summary><pre>{escape(first['command'])}</pre>"
        under += "</details>"
    number = first["number"]
    return (
        f'<tr id="claim-{number}" class="{verdict.name.lower()}"><td>{number}</td><td>{words}</td>'
        f"<td><b>{escape(verdict)}</b></td><td><ul>{parts}</ul>{under}</td></tr>"
    )


def to_html(frame: pd.DataFrame, link: Callable[[str, bool], str]) -> str:
    """The ledger as a table, a row a claim.

    Args:
        frame: from ``build``.
        link: makes a link of the name of a figure, table or equation; its second argument says
            whether any runs were there to draw it from.
    """
    head = "".join(f"<th>{name}</th>" for name in ("", "Claim", "Verdict", "Evidence"))
    body = "\n".join(_claim(rows, link) for _, rows in frame.groupby("number", sort=False))
    return f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
