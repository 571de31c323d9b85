"""Table 5: failures of the SVD and accuracy of GCP, the paper's beside those of a study."""

from __future__ import annotations

import pandas as pd

from orthocond.report.paper import PAPER_TABLES
from orthocond.report.provenance import Provenance
from orthocond.report.statistics import detectable_remark
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.tables.comparison import (
    NOT_RUN,
    absent_cells,
    assemble,
    available,
    is_data_set,
    mean_and_spread,
    not_run_remark,
    row_methods,
    summaries,
)
from orthocond.report.tables.table import Table

HOW = (
    "Failures: decompositions whose first attempt did not converge, mean over runs; unrecovered: "
    "those that no retry saved. Accuracy in percent, mean ± sample standard deviation over seeds"
)


def accuracies(selection: Selection) -> pd.DataFrame:
    """Return, for each method, failures per run and the mean and spread of both accuracies."""
    rows = {}
    for method, runs in selection.runs.items():
        failures = mean_and_spread(summaries(runs, "failures"), "failures")["failures mean"]
        unrecovered = mean_and_spread(summaries(runs, "unrecovered"), "unrecovered")[
            "unrecovered mean"
        ]
        rows[method] = {
            "failures": failures,
            "unrecovered": unrecovered,
            **mean_and_spread(summaries(runs, "top1"), "top-1"),
            **mean_and_spread(summaries(runs, "top5"), "top-5"),
            "n": len(runs),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def build(study: Study) -> Table:
    """Return the paper's numbers beside those of a study.

    Raises:
        MissingRuns: none of the table's methods was run.
    """
    selections = available(study, "gcp", [*PAPER_TABLES[5].rows, "gap"])
    methods = row_methods(5, selections, others=False)
    ours: dict[str, pd.DataFrame] = {}
    cells: dict[str, dict[str, str]] = {}
    remarks: list[str] = []
    if not any(is_data_set(s.data, "ImageNet") for s in selections):
        ours["here: ImageNet"] = pd.DataFrame(columns=["top-1 mean"], dtype=float)
        cells["here: ImageNet"] = dict.fromkeys(methods, NOT_RUN)
        remarks.append(not_run_remark("ImageNet"))
    for selection in selections:
        group = f"here: {selection.title}"
        ours[group] = accuracies(selection)
        cells[group] = absent_cells(selection, methods)
    remarks += filter(None, (detectable_remark(selection, "top1") for selection in selections))
    provenance = Provenance.of(*selections, how=HOW, more=remarks)
    return assemble(5, methods, ours, cells, provenance)
