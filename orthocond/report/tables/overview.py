"""A study at a glance: error, rank and condition numbers, one row per method."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.config.tasks import TASKS
from orthocond.report.provenance import Provenance
from orthocond.report.statistics import WIDE
from orthocond.report.studies.selection import shown_together
from orthocond.report.study import Study
from orthocond.report.style import STYLES, label
from orthocond.report.tables.comparison import mean_and_spread, summaries
from orthocond.report.tables.table import Table

CONDITIONING = ("rank", "kappa", "kappa_support")
HOW = (
    "Error in percent, mean ± sample standard deviation over n seeds{kinds}. Rank and κ: medians "
    "over the last tenth of training and then over the seeds"
)
BOTH_ERRORS = (
    ", with the moving averages; recalibrated: the same weights with population statistics from "
    "training images"
)


def _row(task: str, runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """Return the statistics of one method's runs."""
    kinds = {"": "error"}
    if TASKS[task].running_statistics:
        kinds["recalibrated"] = "recalibrated_error"
    row: dict[tuple[str, str], float] = {("", "n"): len(runs)}
    for group, key in kinds.items():
        row |= {(group, k): v for k, v in mean_and_spread(summaries(runs, key), "error").items()}
    late = pd.DataFrame([run.summary["conditioning"] for run in runs])
    fields = (*CONDITIONING, "kappa_eps") if TASKS[task].has_eps else CONDITIONING
    return row | {("", field): late[field].astype(float).median() for field in fields}


def of_task(study: Study, task: str, data: str | None = None, name: str | None = None) -> Table:
    """Return one row per method of a task, and per control with a stem as wide as that of OW.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set; None takes the data set with most runs.
        name: name of the study; None takes the largest one of the data set.

    Raises:
        MissingRuns: the task has no runs, or all of them diverged.
    """
    own = study.select(task, data=data, name=name)
    parts = shown_together(own, study.beside(own, stem_kernel=WIDE))
    rows: dict[str, dict[tuple[str, str], float]] = {}
    labels: dict[str, str] = {}
    for selection in parts:
        suffix = "" if selection.hash == own.hash else f" ({WIDE}×{WIDE} stem)"
        for method in sorted(selection.runs, key=_place):
            if selection.runs[method]:
                rows[method + suffix] = _row(task, selection.runs[method])
                labels[method + suffix] = label(method) + suffix
    frame = pd.DataFrame(rows).T  # its keys are pairs
    frame.index.name, frame.columns.names = "method", ["source", "statistic"]
    how = HOW.format(kinds=BOTH_ERRORS if TASKS[task].running_statistics else "")
    return Table(
        title=f"Overview of {TASKS[task].label} on {own.title}",
        frame=frame,
        labels=labels,
        cells={},
        provenance=Provenance.of(*parts, how=how),
    )


def _place(method: str) -> int:
    """Return a method's position: the paper's methods in its order, then all others."""
    known = list(STYLES)
    return known.index(method) if method in known else len(known)
