"""What every study found: one row per study, one column per treatment."""

from __future__ import annotations

import pandas as pd

from orthocond.report.findings import effects, how, row_name, sources
from orthocond.report.provenance import Provenance
from orthocond.report.study import Study
from orthocond.report.tables.cells import EFFECTS
from orthocond.report.tables.comparison import NOT_RUN
from orthocond.report.tables.regimes import ROWS
from orthocond.report.tables.table import Table


def build(study: Study) -> Table:
    """Return the effects of the paper's treatments on the error, in every study.

    Raises:
        MissingRuns: no study has one of the treatments and plain SVD at one seed.
    """
    found = effects(study, tuple(EFFECTS))
    rows, seeds = {}, []
    for (task, name), own in found.groupby(["task", "study"], sort=False):
        row = {("", "gap"): own["gap"].iloc[0]}
        fewest, most = own["n"].min(), own["n"].max()
        where = row_name(str(task), str(name))
        seeds.append(f"{fewest} to {most} in {where}" if fewest < most else f"{most} in {where}")
        by_method = own.set_index("method")
        for method, heading in EFFECTS.items():
            for key in ("mean", "low", "high"):
                value = by_method[key].get(method, float("nan"))
                row["", f"{heading} {key}"] = value
        rows[where] = row
    frame = pd.DataFrame(rows).T
    frame.index.name, frame.columns.names = ROWS, ["source", "statistic"]
    return Table(
        title="Effect of each treatment on the error",
        frame=frame,
        labels={row: row for row in rows},
        cells={"": dict.fromkeys(rows, NOT_RUN)},
        provenance=Provenance(
            f"{how(found)}. Seeds: {', '.join(seeds)}", runs=sources(study, found)
        ),
    )
