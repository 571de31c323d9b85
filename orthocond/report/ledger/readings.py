"""Measures that verdicts are based on: functions that read one number from a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from orthocond.artifacts.run_writer import Run
from orthocond.report.statistics import Reading, of_summary
from orthocond.report.style import label

# Above this ratio of kappa to kappa_support the covariance is rank-deficient: kappa is noise.
SHORT = 1.01


def _log(value: float | None) -> float:
    return math.log10(value) if value is not None and value > 0 else math.nan


def log_kappa(key: str) -> Reading:
    """Return a reading of ``kappa`` or ``kappa_support``.

    The reading is log10 of the median over the last tenth of training.
    """
    return lambda run: _log(run.summary["conditioning"][key])


def _records(run: Run, phase: str, since: float) -> pd.Series[float]:
    """Return kappa on the support in one phase, from the fraction ``since`` of training onwards."""
    rows = run.conditioning
    own = rows[(rows["phase"] == phase) & (rows["step"] >= since * rows["step"].max())]
    return own["kappa_support"]


def spike(run: Run) -> float:
    """Return log10 of kappa on the support: median in evaluation minus median in training.

    Both medians are over the second half of training.
    """
    evaluation, training = (_records(run, phase, 0.5).median() for phase in ("eval", "train"))
    return _log(evaluation) - _log(training)


def wander(run: Run) -> float:
    """Return the standard deviation of log10 kappa (support) over the second half of training."""
    return float(_records(run, "train", 0.5).map(_log).std())


def used(run: Run) -> float:
    """Return the fraction of steps in the last epoch that used OLR's own learning rate."""
    return float(run.metrics["eta_used"].iloc[-1])


@dataclass(frozen=True)
class Measure:
    """A number that is read from runs.

    Args:
        name: name for readers.
        unit: unit of the number, or an empty string.
        reading: returns the number of a run.
        beside: key of the measure that is shown next to this one, or None.
    """

    name: str
    unit: str
    reading: Callable[[Run], float | None]
    beside: str | None = None


MEASURES = {
    "error": Measure("error", "points", of_summary("error"), "recalibrated"),
    "recalibrated": Measure("error, recalibrated", "points", of_summary("recalibrated_error")),
    "support": Measure("log10 κ on the support", "", log_kappa("kappa_support"), "kappa"),
    "kappa": Measure("log10 κ as an SVD sees it", "", log_kappa("kappa"), "support"),
    "failures": Measure("failed decompositions a run", "", of_summary("failures")),
    "spike": Measure("log10 κ on the support, evaluation − training", "", spike),
    "wander": Measure("deviation of log10 κ on the support over training", "", wander),
    "used": Measure("part of the last epoch's steps that take OLR's rate", "", used),
}


def rounding(methods: Mapping[str, Iterable[Run]]) -> str:
    """List the methods whose kappa is rounding noise (rank-deficient covariance), in words.

    The text is empty where there is no such method.
    """
    noise = []
    for method, runs in methods.items():
        late = pd.DataFrame([run.summary["conditioning"] for run in runs])
        late = late.dropna(subset=["kappa", "kappa_support", "rank"])
        if len(late) and (late["kappa"] > SHORT * late["kappa_support"]).any():
            noise.append(f"{label(method)} (rank {late['rank'].median():g})")
    return f"κ is rounding noise in {', '.join(noise)}" if noise else ""
