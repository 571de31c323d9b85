"""Differences in error between methods at equal seeds, one row per contrast, primary ones first."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from orthocond.config.tasks import TASKS
from orthocond.report.provenance import Provenance
from orthocond.report.statistics import WIDE, contrasts
from orthocond.report.studies.selection import shown_together
from orthocond.report.study import Study
from orthocond.report.tables.comparison import NOT_RUN
from orthocond.report.tables.table import Table

HEADINGS = {
    "mean": "difference mean",
    "low": "difference low",
    "high": "difference high",
    "n": "n",
    "p_holm": "p (Holm)",
    "detectable": "detectable",
}
"""Names in the table, by column of ``contrasts``."""

HOW = (
    "Paired differences of error{statistics} over equal seeds; primary: p adjusted by Holm over "
    "{count} contrasts, also those without runs; exploratory: unadjusted 95% t intervals"
)

REMARK = (
    "In points, with 95% t intervals. The primary family, named before the runs: {family}; all "
    "others are exploratory. Detectable: the smallest true difference that n seeds would show with "
    "a power of 80%"
)


def of_task(study: Study, task: str, data: str | None = None, name: str | None = None) -> Table:
    """Return the contrasts of one task.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set; None takes the data set with most runs.
        name: name of the study; None takes the largest one of the data set.

    Raises:
        MissingRuns: the task has no runs.
    """
    own = study.select(task, data=data, name=name)
    found = contrasts(study, task, own.data, name=own.study).set_index("name")
    family = "; ".join(found.loc[found["family"] == "primary", "contrast"])
    frame = found[list(HEADINGS)].rename(columns=HEADINGS)
    frame.columns = pd.MultiIndex.from_product([[""], frame.columns], names=["source", "statistic"])
    frame.index.name = "method"
    selections = shown_together(own, study.beside(own, stem_kernel=WIDE))
    statistics = " with recalibrated statistics" if TASKS[task].running_statistics else ""
    how = HOW.format(statistics=statistics, count=(found["family"] == "primary").sum())
    source = Provenance.of(*selections, how=how)
    return Table(
        title=f"Differences in error of {TASKS[task].label} on {own.title}",
        frame=frame,
        labels=dict(zip(found.index, found["contrast"], strict=True)),
        cells={"": dict.fromkeys(found.index, NOT_RUN)},
        provenance=replace(source, remarks=(REMARK.format(family=family), *source.remarks)),
    )
