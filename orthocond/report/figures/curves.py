"""Conditioning over training: the curves of figures 1 to 5, as data.

Note [Two condition numbers]
    The paper plots max |l_i| / min |l_i|, where l_i are the eigenvalues of the covariance. Some
    covariances are singular by construction: a dense 3x3 convolution from 3 channels has at most
    27 independent outputs, and N positions span N - 1 dimensions. There the denominator is rounding
    noise. So each figure has a second row, l_max / l_rank on the support, and the rank beside each
    method. The shaded zone in the first row begins at 1 / rank_tol: in this zone a covariance is
    singular to the precision of its features.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.commands import MissingRuns
from orthocond.report.paper import STATED_KAPPAS, StatedKappa
from orthocond.report.studies.selection import Selection
from orthocond.report.style import label

FIELDS = ("kappa", "kappa_support", "rank")
LEVELS = ("structural_rank", "rank_tol")  # one value per run, drawn as lines
RANGES = tuple(f"{field}_{end}" for end in ("low", "high") for field in FIELDS)
COLUMNS = (*FIELDS, *RANGES, *LEVELS, "n")
WINDOWS = 25  # a curve is smoothed over 1 / WINDOWS of its records
LATE = 0.1  # the last part of training, which the alt text summarizes
HUGE = np.finfo(float).max  # replaces inf in a rolling median, which would skip inf


def window(records: int) -> int:
    """Return the odd number of records in the window of a curve's running median.

    Example:
        >>> window(10), window(250)
        (1, 11)
    """
    return records // WINDOWS // 2 * 2 + 1


def _training_records(run: Run) -> pd.DataFrame:
    rows = run.conditioning
    rows = rows[rows["phase"] == "train"].sort_values("step", kind="stable")
    parts = rows[["step", *FIELDS, *LEVELS]].reset_index(drop=True)
    values = parts[list(FIELDS)].replace(np.inf, HUGE)
    medians = values.rolling(window(len(parts)), center=True, min_periods=1).median()
    parts[list(FIELDS)] = medians.mask(medians >= HUGE, np.inf)
    return parts


def _evaluation_records(run: Run) -> pd.DataFrame:
    """Return one row per evaluation: the medians over its batches."""
    rows = run.conditioning
    epochs = rows[rows["phase"] == "eval"].groupby("epoch")
    parts = epochs[[*FIELDS, *LEVELS]].median()
    parts.insert(0, "step", epochs["step"].min())
    return parts.reset_index(drop=True)


RECORDS = {"train": _training_records, "eval": _evaluation_records}


def curves(selection: Selection, phase: str = "train") -> pd.DataFrame:
    """Return the conditioning of each method over training.

    Args:
        selection: the runs.
        phase: ``train`` (smoothed) or ``eval`` (one row per evaluation).

    Returns:
        One row per method and step. kappa, kappa_support and rank are medians over the seeds, their
        columns with ``_low`` and ``_high`` the range over the seeds; ``n`` is the number of seeds.

    Raises:
        MissingRuns: no run recorded a covariance.
    """
    tables = []
    for method, runs in selection.runs.items():
        records = pd.concat([RECORDS[phase](run) for run in runs] or [pd.DataFrame()])
        if records.empty:
            continue
        steps = records.groupby("step")
        table = steps[list(FIELDS)].median()
        table = table.join(steps[list(FIELDS)].min().add_suffix("_low"))
        table = table.join(steps[list(FIELDS)].max().add_suffix("_high"))
        table = table.join(steps[list(LEVELS)].median())
        table["n"] = steps.size()
        table.insert(0, "method", method)
        tables.append(table.reset_index())
    if not tables:
        raise MissingRuns(f"no run of task {selection.task!r} for this recorded a covariance")
    frame = pd.concat(tables, ignore_index=True)
    frame.insert(0, "task", selection.task)
    frame.insert(1, "data", selection.title)
    frame.insert(4, "label", frame["method"].map(label))
    return frame


def late(frame: pd.DataFrame, field: str) -> dict[str, float]:
    """Return each method's median of a field over the last tenth of training."""
    start = (1 - LATE) * frame["step"].max()
    tail = frame[frame["step"] >= start]
    return {
        method: float(tail.loc[tail["method"] == method, field].median())
        for method in frame["method"].unique()
    }


def rank_text(frame: pd.DataFrame, method: str) -> str:
    """Return a method's rank, or the range of its ranks over training, as a text.

    Example:
        >>> import pandas as pd
        >>> rank_text(pd.DataFrame({"method": ["bn", "bn"], "rank": [27.0, 27.0]}), "bn")
        '27'
    """
    ranks = frame.loc[frame["method"] == method, "rank"]
    low, high = round(ranks.quantile(0.05)), round(ranks.quantile(0.95))
    return str(low) if low == high else f"{low} to {high}"


def noise_level(frame: pd.DataFrame) -> float:
    """Return the kappa above which a covariance is singular to the precision of its features."""
    return float(1 / frame["rank_tol"].median())


def in_noise(frame: pd.DataFrame) -> list[str]:
    """Return the methods whose kappa is rounding noise in every record of a frame."""
    above = frame["kappa"] > noise_level(frame)
    return [method for method, own in above.groupby(frame["method"], sort=False) if own.all()]


def stated(frame: pd.DataFrame) -> list[StatedKappa]:
    """Return the magnitudes that the paper's text states for the methods of a frame."""
    shown = set(zip(frame["task"], frame["method"], strict=True))
    return [kappa for kappa in STATED_KAPPAS if (kappa.task, kappa.method) in shown]
