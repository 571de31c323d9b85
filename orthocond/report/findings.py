"""What every study found: the effect of each treatment on the error, beside the gap."""

from __future__ import annotations

import math

import pandas as pd

from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN, TASKS
from orthocond.report.provenance import Source
from orthocond.report.regimes import regimes
from orthocond.report.statistics import final_error, paired
from orthocond.report.study import Study

HOW = (
    "Error (with recalibrated statistics) with the treatment minus that of plain SVD at equal "
    "seeds, in points, with a 95% t interval, not adjusted for several comparisons: a negative "
    "number means that the treatment is better. Gap: training minus test accuracy of plain SVD, in "
    "points"
)
WHILE_TRAINING = (
    "; in {studies}, training accuracy was measured while training, on augmented images, which "
    "makes the gap look smaller"
)


def effects(study: Study, methods: tuple[str, ...]) -> pd.DataFrame:
    """Return the effect of treatments in every study that has plain SVD.

    Args:
        study: the runs.
        methods: canonical names.

    Returns:
        One row per study and method with a common seed, in the order of the tasks, studies and
        methods. Columns task, study, gap, evaluated (the training accuracy in the gap was measured
        in evaluation mode), method, mean, low, high (difference of ``final_error`` to plain SVD,
        95% t interval) and n (seeds). The interval of one seed is NaN.

    Raises:
        MissingRuns: no study has one of the methods and plain SVD at one seed.
    """
    rows = []
    for task in TASKS:
        for name, own in regimes(study, task).items():
            runs = study.select(task, name=name).runs
            for method in methods if own.method == PLAIN else ():
                found = paired(runs.get(method, ()), runs[PLAIN], final_error)
                if found.n:
                    row = {"task": task, "study": name, "gap": own.gap}
                    row |= {"evaluated": own.evaluated, "method": method}
                    values = {key: getattr(found, key) for key in ("mean", "low", "high", "n")}
                    rows.append(row | values)
    if not rows:
        task = study.main_task
        raise study.missing(task, (PLAIN, *methods), beside=study.largest(task))
    return pd.DataFrame(rows)


def how(frame: pd.DataFrame) -> str:
    """Return how the effects and the gaps were computed, in words."""
    studies = list(dict.fromkeys(frame.loc[~frame["evaluated"], "study"]))
    return HOW + (WHILE_TRAINING.format(studies=", ".join(studies)) if studies else "")


def sources(study: Study, frame: pd.DataFrame) -> tuple[Source, ...]:
    """Return the runs that the effects were computed from."""
    found = []
    for (task, name), own in frame.groupby(["task", "study"], sort=False):
        runs = study.select(str(task), name=str(name)).runs
        found += [Source.of(run) for method in (PLAIN, *own["method"]) for run in runs[method]]
    return tuple(found)


def effect_text(mean: float, low: float, high: float) -> str:
    """Return an effect and its 95% interval in words; the interval of one seed is NaN.

    Example:
        >>> effect_text(0.62, 0.2, 1.04), effect_text(0.2, float("nan"), float("nan"))
        ('+0.6 [+0.2, +1.0]', '+0.2 (one seed)')
    """
    interval = "(one seed)" if math.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"
    return f"{mean:+.1f} {interval}"


def row_name(task: str, study: str) -> str:
    """Return the name of a study, with its task where this is not decorrelated batch norm.

    Example:
        >>> row_name("gcp", "mine")
        'mine (GCP)'
    """
    return study if task == DBN.name else f"{study} ({TASKS[task].short_label})"
