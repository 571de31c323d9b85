"""A study at a glance: a row a method, its error beside the covariance that it trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from orthocond.report.provenance import attach
from orthocond.report.statistics import WIDE
from orthocond.report.study import Study, shown_together
from orthocond.report.style import STYLES, TASKS, label
from orthocond.report.tables import moments, summaries
from orthocond.runs import Run

CONDITIONING = ("rank", "kappa", "kappa_support")
REMARK = (
    "Error in percent, mean ± sample standard deviation over n seeds{kinds}. Rank and κ: medians "
    "over the last tenth of training and then over the seeds"
)
KINDS = (
    ", with the moving averages; recalibrated: the same weights with population statistics from "
    "training images"
)


def _row(task: str, runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """The statistics of one method's runs."""
    kinds = {"": "error", "recalibrated": "recalibrated_error"} if task == "dbn" else {"": "error"}
    row: dict[tuple[str, str], float] = {("", "n"): len(runs)}
    for group, key in kinds.items():
        row |= {(group, k): v for k, v in moments(summaries(runs, key), "error").items()}
    late = pd.DataFrame([run.summary["conditioning"] for run in runs])
    fields = (*CONDITIONING, "kappa_eps") if task == "dbn" else CONDITIONING  # pooling has no eps
    return row | {("", field): late[field].astype(float).median() for field in fields}


def of_task(study: Study, task: str, data: str | None = None) -> pd.DataFrame:
    """One task's methods, and plain networks whose stem is as wide as OW's.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set; None takes the one with most runs.

    Returns:
        A table as ``render`` writes it out.

    Raises:
        MissingRuns: the task has no runs that came to their end.
    """
    own = study.select(task, data=data)
    parts = shown_together(own, study.beside(own, stem_kernel=WIDE))
    rows: dict[str, dict[tuple[str, str], float]] = {}
    labels: dict[str, str] = {}
    for selection in parts:
        suffix = "" if selection.hash == own.hash else f" ({WIDE}×{WIDE} stem)"
        for method in sorted(selection.runs, key=_place):
            if selection.runs[method]:
                rows[method + suffix] = _row(task, selection.runs[method])
                labels[method + suffix] = label(method) + suffix
    if not rows:
        raise study.missing(task, own.diverged, own.settings)
    frame = pd.DataFrame(rows).T  # its keys are pairs
    frame.index.name, frame.columns.names = "method", ["source", "statistic"]
    attach(frame, *parts, remark=REMARK.format(kinds=KINDS if task == "dbn" else ""))
    frame.attrs |= {
        "title": f"Overview of {TASKS[task]} on {own.data}",
        "labels": labels,
        "cells": {},
    }
    return frame


def _place(method: str) -> int:
    """Where a method stands: as in the paper, ours after it."""
    known = list(STYLES)
    return known.index(method) if method in known else len(known)


def build(study: Study) -> pd.DataFrame:
    """Decorrelated BN, or the study's only task.

    Raises:
        MissingRuns: there are no runs.
    """
    return of_task(study, study.main_task)
