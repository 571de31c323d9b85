"""What is read off a run for a verdict: one number each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from orthocond.report.statistics import Reading, of_summary
from orthocond.report.style import label
from orthocond.runs import Run

SHORT = 1.01  # kappa is above kappa_support by more: the rank is, and kappa has rounding in it


def _log(value: float | None) -> float:
    return math.log10(value) if value is not None and value > 0 else math.nan


def log_kappa(key: str) -> Reading:
    """log10 of the median over the last tenth of training, of ``kappa`` or ``kappa_support``."""
    return lambda run: _log(run.summary["conditioning"][key])


def _records(run: Run, phase: str, since: float) -> pd.Series[float]:
    """kappa on the support in one phase, from a part of training on."""
    rows = run.conditioning
    own = rows[(rows["phase"] == phase) & (rows["step"] >= since * rows["step"].max())]
    return own["kappa_support"]


def spike(run: Run) -> float:
    """log10 of kappa on the support: its median in the evaluations less that between them."""
    evaluation, training = (_records(run, phase, 0.5).median() for phase in ("eval", "train"))
    return _log(evaluation) - _log(training)


def wander(run: Run) -> float:
    """How far log10 of kappa on the support varies: its deviation over the last half."""
    return float(_records(run, "train", 0.5).map(_log).std())


def used(run: Run) -> float:
    """The part of the last epoch's steps in which OLR's own rate was taken."""
    return float(run.metrics["eta_used"].iloc[-1])


@dataclass(frozen=True)
class Measure:
    """A number that is read off runs.

    Args:
        name: for people.
        unit: of it.
        reading: takes it from a run.
        beside: key of the measure that is shown with it, or None.
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
    """Whose kappa is rounding noise because the rank is short, in words; empty where none is."""
    noise = []
    for method, runs in methods.items():
        late = pd.DataFrame([run.summary["conditioning"] for run in runs]).dropna()
        if len(late) and (late["kappa"] > SHORT * late["kappa_support"]).any():
            noise.append(f"{label(method)} (rank {late['rank'].median():g})")
    return f"κ is rounding noise in {', '.join(noise)}" if noise else ""
