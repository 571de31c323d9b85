"""Measures that verdicts are based on: functions that read one number from a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.statistics import Reading, final_error, of_summary
from orthocond.report.style import label

# Above this ratio of kappa to kappa_support the covariance is rank-deficient: kappa is noise.
SHORT = 1.01


def _log(value: float | None) -> float:
    return math.log10(value) if value is not None and value > 0 else math.nan


def log_kappa(key: str) -> Reading:
    """Return a reading of a condition number of the probe, such as ``kappa_support``.

    The reading is log10 of the median over the last tenth of training; NaN where the run does not
    have this number.
    """
    return lambda run: _log(run.summary["conditioning"].get(key))


def _records(run: Run, phase: str, since: float, key: str = "kappa_support") -> pd.Series[float]:
    """Return a condition number in one phase, from the fraction ``since`` of training onwards."""
    rows = run.conditioning
    own = rows[(rows["phase"] == phase) & (rows["step"] >= since * rows["step"].max())]
    return own[key]


def spike(run: Run) -> float:
    """Return log10 of kappa on the support: median in evaluation minus median in training.

    Both medians are over the second half of training.
    """
    evaluation, training = (_records(run, phase, 0.5).median() for phase in ("eval", "train"))
    return _log(evaluation) - _log(training)


def wander(key: str) -> Reading:
    """Return a reading: the standard deviation of log10 kappa over the second half of training."""
    return lambda run: float(_records(run, "train", 0.5, key).map(_log).std())


def averaged_error(run: Run) -> float:
    """Return the final error with moving averages in percent; NaN where the task has none."""
    return math.nan if run.summary["recalibrated_error"] is None else run.summary["error"]


def off_orthogonal(run: Run) -> float:
    """Return the largest distance from 1 of a singular value of the Pre-SVD weight at the end."""
    last = run.metrics.iloc[-1]
    return float(max(abs(last["sv_min"] - 1), abs(last["sv_max"] - 1)))


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
        across: keys of the measures that replace this one where the ranks of two methods differ.
    """

    name: str
    unit: str
    reading: Callable[[Run], float | None]
    beside: str | None = None
    across: tuple[str, ...] = ()


MEASURES = {
    "error": Measure("error", "points", final_error, "averaged"),
    "averaged": Measure("error with moving averages", "points", averaged_error),
    "support": Measure(
        "log10 κ on the support", "", log_kappa("kappa_support"), "kappa", ("common", "eps")
    ),
    "common": Measure("log10 κ at the common rank", "", log_kappa("kappa_common")),
    "eps": Measure("log10 κ with ε", "", log_kappa("kappa_eps")),
    "kappa": Measure("log10 κ as an SVD sees it", "", log_kappa("kappa"), "support"),
    "off": Measure("distance of the weight's singular values from 1", "", off_orthogonal),
    "failures": Measure("failed decompositions a run", "", of_summary("failures")),
    "spike": Measure("log10 κ on the support, evaluation − training", "", spike),
    "wander": Measure(
        "deviation of log10 κ on the support over training",
        "",
        wander("kappa_support"),
        across=("wander common", "wander eps"),
    ),
    "wander common": Measure(
        "deviation of log10 κ at the common rank over training", "", wander("kappa_common")
    ),
    "wander eps": Measure("deviation of log10 κ with ε over training", "", wander("kappa_eps")),
    "used": Measure("part of the last epoch's steps that take OLR's rate", "", used),
}


def ranks(runs: Iterable[Run]) -> set[float]:
    """Return the ranks of the covariance at the end of the runs."""
    return {run.summary["conditioning"]["rank"] for run in runs}


def in_words(values: Iterable[float]) -> str:
    """Return numbers in words.

    Example:
        >>> in_words({27, 26})
        '26 or 27'
    """
    return " or ".join(f"{value:g}" for value in sorted(values))


def comparable(key: str, own: Iterable[Run], base: Iterable[Run], has_eps: bool) -> tuple[str, ...]:
    """Return the keys of the measures by which two methods can be compared.

    At equal ranks this is the measure itself. Kappa on the supports of different ranks describes
    different things; then the keys are those in ``across`` that all runs have. At a common rank,
    the rank must be the same in all runs. The result is empty where the runs have none of them.

    Args:
        key: key of ``MEASURES``.
        own, base: runs of the two methods.
        has_eps: True if the meta-layer adds eps to the covariance, so that the kappa with eps is
            not the plain one.
    """
    runs = [*own, *base]
    across = MEASURES[key].across
    if not across or len(ranks(runs)) == 1:
        return (key,)
    at = {rank for run in runs for rank in run.conditioning["common_rank"].unique()}
    possible = [k for k in across if (has_eps if k.endswith("eps") else len(at) == 1)]
    values = {k: [MEASURES[k].reading(run) for run in runs] for k in possible}
    return tuple(k for k, v in values.items() if np.isfinite(np.array(v, dtype=float)).all())


def is_rounding(run: Run) -> bool:
    """Tell whether kappa of a run is rounding noise, because the covariance is rank-deficient."""
    late = run.summary["conditioning"]
    kappa, support = late["kappa"], late["kappa_support"]
    return kappa is not None and support is not None and kappa > SHORT * support


def rounding(methods: Mapping[str, Iterable[Run]]) -> str:
    """List the methods whose kappa is rounding noise (rank-deficient covariance), in words.

    The text is empty where there is no such method.
    """
    noise = []
    for method, runs in methods.items():
        short = [run for run in runs if is_rounding(run)]
        if short:
            rank = median(run.summary["conditioning"]["rank"] for run in short)
            noise.append(f"{label(method)} (rank {rank:g})")
    return f"κ is rounding noise in {', '.join(noise)}" if noise else ""
