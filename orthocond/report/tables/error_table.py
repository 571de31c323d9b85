"""Tables 1 to 4: validation errors of decorrelated BN, the paper's beside those of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orthocond.report.paper import PAPER_TABLES
from orthocond.report.provenance import Provenance
from orthocond.report.statistics import detectable_remark
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.tables.comparison import (
    NOT_RUN,
    PAPER_PRESETS,
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

SUMMARY_KEYS = {"": "error", ", recalibrated": "recalibrated_error"}
"""Keys in a run's summary, by the suffix that a column adds to the name of the data set."""

HOW = (
    "Error in percent, mean ± sample standard deviation over seeds, with the moving averages as in "
    "the paper; recalibrated: the same weights with population statistics from training images"
)

STAND_IN = "{data}, at {size} pixels, is not in the paper: a stand-in for a set that was not run"


def errors(selection: Selection, key: str) -> pd.DataFrame:
    """Return mean, standard deviation, minimum and count of each method's final error."""
    rows = {}
    for method, runs in selection.runs.items():
        values = np.array(summaries(runs, key), dtype=float)
        row = mean_and_spread(values, "error")
        rows[method] = {**row, "error min": values.min() if len(runs) else np.nan, "n": len(runs)}
    return pd.DataFrame.from_dict(rows, orient="index")


def error_table(number: int, study: Study, others: bool = False) -> Table:
    """Return one of tables 1 to 4.

    Args:
        number: of the paper's table.
        study: the runs.
        others: append a row for every other method that was run.

    Raises:
        MissingRuns: none of the table's methods was run.
    """
    wanted = None if others else [*PAPER_TABLES[number].rows, "bn"]
    selections = available(study, "dbn", wanted)
    methods = row_methods(number, selections, others)
    papers = dict.fromkeys(c.rpartition(" ")[0] for c in PAPER_TABLES[number].columns)
    ours: dict[str, pd.DataFrame] = {}
    cells: dict[str, dict[str, str]] = {}
    remarks: list[str] = []
    for paper in papers:
        if not any(is_data_set(s.data, paper) for s in selections):
            group = f"here: {paper}"
            ours[group] = pd.DataFrame(columns=["error mean"], dtype=float)
            cells[group] = dict.fromkeys(methods, NOT_RUN)
            remarks.append(not_run_remark(paper))
    for selection in selections:
        if ours and not any(is_data_set(selection.data, paper) for paper in PAPER_PRESETS):
            size = selection.settings["data"]["size"]
            remarks.append(STAND_IN.format(data=selection.title, size=size))
        for suffix, key in SUMMARY_KEYS.items():
            group = f"here: {selection.title}{suffix}"
            part = errors(selection, key)
            ours[group] = part.drop(columns="n") if suffix else part
            cells[group] = absent_cells(selection, methods)
    remarks += filter(None, (detectable_remark(selection, "error") for selection in selections))
    provenance = Provenance.of(*selections, how=HOW, more=remarks)
    return assemble(number, methods, ours, cells, provenance)
