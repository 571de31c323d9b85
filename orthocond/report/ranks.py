"""Ranks and condition numbers at the end of training, a row a task and method."""

from __future__ import annotations

import pandas as pd

from orthocond.report.provenance import attach
from orthocond.report.study import MissingRuns, Selection, Study
from orthocond.report.style import label

FIELDS = ("rank", "kappa", "kappa_support", "effective_rank", "kappa_eps", "negative")
REMARK = "Medians over the last tenth of training and then over the seeds"


def _rows(selection: Selection) -> list[dict[str, object]]:
    rows = []
    for method, runs in selection.runs.items():
        late = pd.DataFrame([run.summary["conditioning"] for run in runs])
        if late.empty:
            continue
        structural = runs[0].conditioning["structural_rank"].iloc[0]
        where = {"task": selection.task, "data": selection.data, "method": label(method)}
        medians = late[list(FIELDS)].astype(float).median()
        rows.append(where | {"structural_rank": structural} | dict(medians.items()))
    return rows


def build(study: Study) -> pd.DataFrame:
    """The numbers, with their provenance in ``attrs``.

    Raises:
        MissingRuns: neither task has a run.
    """
    selections = []
    for task in ("dbn", "gcp"):
        try:
            selections.append(study.select(task))
        except MissingRuns:
            continue
    if not selections:
        raise study.missing("dbn", ["svd"])
    frame = pd.DataFrame([row for selection in selections for row in _rows(selection)])
    return attach(frame, *selections, remark=REMARK)
