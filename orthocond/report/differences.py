"""Differences in error between methods at equal seeds: a row a contrast, the primary ones first."""

from __future__ import annotations

import pandas as pd

from orthocond.report.statistics import contrasts
from orthocond.report.study import Study
from orthocond.report.style import TASKS
from orthocond.report.tables import NOT_RUN

COLUMNS = {
    "mean": "difference mean",
    "low": "difference low",
    "high": "difference high",
    "n": "n",
    "p_holm": "p (Holm)",
    "detectable": "detectable",
}
"""A column of ``contrasts``: what it is called here."""

REMARK = (
    "In points, with 95% t intervals. The primary family, named before the runs: {family}; all "
    "others are exploratory. Detectable: the smallest true difference that n seeds would show with "
    "a power of 80%"
)


def of_task(study: Study, task: str, data: str | None = None) -> pd.DataFrame:
    """One task's contrasts.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set; None takes the one with most runs.

    Returns:
        A table as ``render`` writes it out.

    Raises:
        MissingRuns: the task has no runs.
    """
    data = study.select(task, data=data).data
    found = contrasts(study, task, data).set_index("name")
    family = "; ".join(found.loc[found["family"] == "primary", "contrast"])
    frame = found[list(COLUMNS)].rename(columns=COLUMNS)
    frame.columns = pd.MultiIndex.from_product([[""], frame.columns], names=["source", "statistic"])
    frame.index.name = "method"
    frame.attrs = found.attrs | {
        "title": f"Differences in error of {TASKS[task]} on {data}",
        "labels": found["contrast"].to_dict(),
        "cells": {"": dict.fromkeys(found.index, NOT_RUN)},
        "remarks": [REMARK.format(family=family), *found.attrs["remarks"]],
    }
    return frame


def build(study: Study) -> pd.DataFrame:
    """Decorrelated BN, or the study's only task.

    Raises:
        MissingRuns: there are no runs.
    """
    return of_task(study, study.main_task)
