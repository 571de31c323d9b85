"""The final figures of runs, one row a run, as a CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from orthocond.artifacts.csv_tables import METRICS, to_csv
from orthocond.artifacts.run_reader import Run
from orthocond.report.regimes import gap, train_images
from orthocond.report.studies.study_names import study_names
from orthocond.spectral.conditioning import MEASURED

SETTINGS = ("task", "model", "stem_kernel", "method", "seed")
OF_SUMMARY = ("status", "steps", "error", "recalibrated_error", "failures", "unrecovered")
OF_LAST_ROW = tuple(name for name in METRICS if name not in ("step", *OF_SUMMARY))
CONDITIONING = tuple(name for name in MEASURED if name not in ("stable_rank", "lambda_max"))
COLUMNS = (
    *("study", "data", "images", *SETTINGS, *OF_SUMMARY, *OF_LAST_ROW, "gap", *CONDITIONING),
    *("device", "commit", "config"),
)
"""Columns of a row: the run, its figures (``metrics.csv`` explains them), where they are from."""


def _row(run: Run, study: str) -> dict[str, Any]:
    settings, summary, environment = run.settings, run.summary, run.environment
    last: Mapping[Any, Any] = {} if run.metrics.empty else run.metrics.iloc[-1].to_dict()
    row = {
        "study": study,
        "data": settings["data"]["name"],
        "images": train_images(run),
        **{key: settings[key] for key in SETTINGS},
        **{key: summary[key] for key in OF_SUMMARY},
        **{key: last.get(key) for key in OF_LAST_ROW},
        "gap": gap(run),
        **{key: summary["conditioning"].get(key) for key in CONDITIONING},
        "device": environment.get("device_name") or environment.get("device"),
        "commit": environment.get("commit"),
        "config": run.config["hash"],
    }
    return {key: None if pd.isna(value) else value for key, value in row.items()}


def results_csv(runs: Iterable[Run]) -> bytes:
    """Return the final figures of complete runs as CSV: one row a run, sorted by study and name.

    The columns are ``COLUMNS``. The gap is train minus test accuracy in points
    (``orthocond.report.regimes``); the figures of training are those of the last epoch, and the
    conditioning is the median over the last tenth of training. A missing value is blank.

    Args:
        runs: complete runs, of one or several studies.
    """
    runs = list(runs)
    names = study_names(runs)
    ordered = sorted(runs, key=lambda run: (names[run.path], run.name))
    return to_csv(COLUMNS, (_row(run, names[run.path]) for run in ordered))
