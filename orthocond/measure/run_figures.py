"""Figures of a run that can be compared with a retraining, and their tolerances.

A figure is a column of metrics.csv, or the median of a column of conditioning.csv over the rows of
an epoch and phase. It is judged at the last compared epoch that has it, because the network there
depends on all steps before. Condition numbers and the largest eigenvalue, which are positive and
vary over orders of magnitude, are compared as log10.

Note [Tolerance]
    Training on the same machine with the same number of threads gives the same bytes
    (orthocond.training.trainer, Note [Resume to the same bytes]), so there the tolerance is 0.

    On another machine the last digits of every sum differ, and training enlarges such differences.
    In the worst case the retrained run is as far from the recorded one as a run with another seed.
    So the difference of a figure has a standard deviation of at most sqrt(2) sigma, where sigma is
    the spread between seeds. It is estimated by the sample standard deviation s over the n other
    seeds: the runs beside the recorded one with the same method and settings. The recorded run is
    left out, because a wrong figure in it would enlarge the tolerance that it is judged by. Then
    the difference over sqrt(2) s has Student's distribution with n - 1 degrees of freedom, if the
    figures are normally distributed. The tolerance is

        t sqrt(2) s,  t: the quantile 1 - LEVEL / (2 m) of that distribution,

    for m figures with a spread (Bonferroni). A faithful retraining has a figure outside its
    tolerance with a probability of at most LEVEL. A change with an effect below the tolerance is
    not noticed.

    Counts can be equal for all seeds although they vary. So the variance of rounding to a whole
    number, 1/12, is added to theirs. Any other figure that is equal for all seeds, such as the
    learning rate, has the tolerance 0.

    Fewer than MIN_SEEDS other seeds give no tolerance: with two, t exceeds 300 for thirty figures,
    and almost any number would be accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from orthocond.artifacts.run_reader import Run
from orthocond.spectral.conditioning import MEASURED

LEVEL = 0.05
MIN_SEEDS = 3
LOGARITHMIC = ("kappa", "kappa_eps", "kappa_support", "kappa_common", "lambda_max")
COUNTS = ("failures", "unrecovered", "train rank", "eval rank")
NOISE = ("negative",)  # a count of rounding errors: compared row by row, but no figure

Series = dict[str, dict[int, float]]  # figure -> epoch -> value


@dataclass(frozen=True)
class Figure:
    """One figure of a recorded run and of its retraining.

    Args:
        name: column, for conditioning.csv after its phase.
        epoch: epoch at which it is judged, counted from 1.
        recorded: value in the recorded run.
        here: value in the retrained run; None if it is missing.
        largest: largest difference at any compared epoch; NaN if a value is missing.
        tolerance: largest allowed difference; None if there is none (Note [Tolerance]).
    """

    name: str
    epoch: int
    recorded: float
    here: float | None
    largest: float
    tolerance: float | None

    @property
    def difference(self) -> float:
        """Retrained minus recorded value; NaN if the former is missing."""
        return _apart(self.recorded, self.here)

    @property
    def within(self) -> bool | None:
        """True if the difference is within the tolerance; None if there is no tolerance."""
        return None if self.tolerance is None else abs(self.difference) <= self.tolerance


def rows_within(rows: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return the rows of a run's table that its first steps wrote.

    A training record is written in its step, counted from 0; any other row after that many steps.

    Example:
        >>> rows = pd.DataFrame({"phase": ["train", "train", "eval"], "step": [0, 2, 2]})
        >>> rows_within(rows, steps=2)["phase"].tolist()
        ['train', 'eval']
    """
    begun = rows["phase"] == "train" if "phase" in rows else 0
    return rows[rows["step"] + begun <= steps]


def tables_of(run: Run, steps: int) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that are compared, with the rows of its first steps."""
    return {name: rows_within(getattr(run, name), steps) for name in ("metrics", "conditioning")}


def series(tables: Mapping[str, pd.DataFrame]) -> Series:
    """Return the figures in the tables of a run: name -> epoch -> value."""
    found: Series = {}
    metrics, conditioning = tables["metrics"], tables["conditioning"]
    for column in metrics.columns.drop(["epoch", "step"]):
        for epoch, value in zip(metrics["epoch"], metrics[column], strict=True):
            if not np.isnan(value):
                found.setdefault(column, {})[int(epoch)] = float(value)
    for field in (f for f in MEASURED if f not in NOISE and f in conditioning):
        name = f"log10 {field}" if field in LOGARITHMIC else field
        medians = conditioning.groupby(["phase", "epoch"], sort=False)[field].median().dropna()
        for phase, epoch, value in medians.reset_index().itertuples(index=False):
            with np.errstate(divide="ignore"):
                value = np.log10(value) if field in LOGARITHMIC else value
            found.setdefault(f"{phase} {name}", {})[int(epoch)] = float(value)
    return found


def figures(
    there: Series, here: Series, seeds: Sequence[Series], same_machine: bool = False
) -> tuple[Figure, ...]:
    """Compare the figures of a recorded run with those of its retraining.

    Args:
        there: figures of the recorded run.
        here: figures of the retrained run.
        seeds: figures of the other seeds, without the recorded run; too few give no tolerances.
        same_machine: True if equal bytes are expected: all tolerances are 0.

    Example:
        >>> seeds = [{"loss": {1: loss}} for loss in (2.0, 2.1, 2.2)]
        >>> (figure,) = figures({"loss": {1: 2.1}}, {"loss": {1: 2.4}}, seeds)
        >>> round(figure.difference, 3), round(figure.tolerance, 3), figure.within
        (0.3, 0.608, True)
    """
    judged = {name: max(values) for name, values in there.items()}
    spreads = {
        name: spread([one.get(name, {}).get(epoch) for one in seeds], name in COUNTS)
        for name, epoch in judged.items()
    }
    unit = factor(len(seeds), sum(bool(s) for s in spreads.values()))

    def tolerance(name: str) -> float | None:
        if same_machine:
            return 0.0
        return None if (s := spreads[name]) is None or unit is None else unit * s

    return tuple(
        Figure(
            name,
            epoch,
            there[name][epoch],
            here.get(name, {}).get(epoch),
            _largest(there[name], here.get(name, {})),
            tolerance(name),
        )
        for name, epoch in judged.items()
    )


def spread(values: Sequence[float | None], is_count: bool = False) -> float | None:
    """Return the standard deviation of a figure over the seeds; None if a value is missing."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not values or len(known) < len(values):
        return None
    variance = 0.0 if len(set(known)) == 1 else float(np.var(known, ddof=1))
    return float(np.sqrt(variance + is_count / 12))


def factor(seeds: int, count: int) -> float | None:
    """Return the tolerance in units of the spread; None for fewer than MIN_SEEDS seeds.

    Args:
        seeds: number of other seeds.
        count: number of figures with a spread.

    Example:
        >>> round(factor(5, 1), 2), round(factor(5, 20), 2)
        (3.93, 9.56)
    """
    if seeds < MIN_SEEDS:
        return None
    return float(np.sqrt(2) * stats.t.ppf(1 - LEVEL / (2 * max(1, count)), seeds - 1))


def _apart(there: float, here: float | None) -> float:
    """Return the difference of two values: 0 if they are equal, even if infinite."""
    return np.nan if here is None else 0.0 if here == there else here - there


def _largest(there: Mapping[int, float], here: Mapping[int, float]) -> float:
    return float(np.max([abs(_apart(there[epoch], here.get(epoch))) for epoch in there]))
