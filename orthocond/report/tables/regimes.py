"""Regimes of the studies: how far plain SVD fits its training images, and what the test shows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN, TASKS
from orthocond.report.provenance import Provenance, Source
from orthocond.report.regimes import Regime, regimes
from orthocond.report.study import Study
from orthocond.report.style import label
from orthocond.report.tables.table import Table

ROWS = "study"
"""Name of the index of a table whose rows are studies."""

HOW = (
    "Mean top-1 accuracy in percent of plain SVD at the end of training. Train: on training images "
    "in evaluation mode, or while training where that was not recorded. Test: with recalibrated "
    "statistics, where the task has any. Gap: train minus test, in points"
)


def _row(own: Regime) -> dict[tuple[str, str], float]:
    images = np.nan if own.images is None else own.images
    return {
        ("", "train (%)"): own.train,
        ("", "test (%)"): own.test,
        ("", "gap"): own.gap,
        ("", "images"): images,
        ("", "steps"): own.steps,
        ("", "n"): own.seeds,
    }


def build(study: Study) -> Table:
    """Return one row per study and task.

    Raises:
        MissingRuns: there are no runs.
    """
    found = {
        f"{name}, {TASKS[task].short_label}": (task, own)
        for task in TASKS
        for name, own in regimes(study, task).items()
    }
    if not found:
        raise study.missing(DBN.name, [PLAIN])
    frame = pd.DataFrame({row: _row(own) for row, (_, own) in found.items()}).T
    frame.index.name, frame.columns.names = ROWS, ["source", "statistic"]
    runs = [
        run
        for task, own in found.values()
        for run in study.select(task, name=own.study).runs[own.method]
    ]
    remarks = [
        f"{row}: the accuracies are those of {label(own.method)}, plain SVD was not run"
        for row, (_, own) in found.items()
        if own.method != PLAIN
    ]
    return Table(
        title="Regimes of the studies",
        frame=frame,
        labels={row: row for row in found},
        cells={"": dict.fromkeys(found, "all")},
        provenance=Provenance(HOW, tuple(remarks), runs=tuple(map(Source.of, runs))),
    )
