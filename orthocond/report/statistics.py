"""Differences between methods that were trained from equal seeds, and what they can show.

Equal seeds start from equal weights and see equal batches, so differences are taken seed by seed.
The contrasts of ``PRIMARY`` were written down before the runs and are one family: their p-values
are adjusted by Holm's procedure. All others are exploratory: unadjusted 95% t intervals, no p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from orthocond.report.provenance import attach
from orthocond.report.study import Selection, Study, shown_together
from orthocond.report.style import label
from orthocond.runs import Run

LEVEL, POWER = 0.05, 0.8
ROUNDING = 1e-9  # of the numbers compared
WIDE = 11  # the stem of the controls: as wide as the skew orthogonal convolution

Reading = Callable[[Run], float | None]
"""One number of a run; None or not finite where the run has none."""


@dataclass(frozen=True)
class Contrast:
    """Two methods to be compared: the first minus the second.

    Args:
        method: canonical name.
        baseline: canonical name.
        control: width of the baseline's stem where it differs: ``WIDE`` has the receptive field
            that the skew orthogonal convolution gives to ``ow``, without its orthogonality.
    """

    method: str
    baseline: str = "svd"
    control: int | None = None

    @property
    def _stem(self) -> str:
        return f" ({self.control}×{self.control} stem)" if self.control else ""

    @property
    def name(self) -> str:
        """What is compared, by canonical names."""
        return f"{self.method} - {self.baseline}{self._stem}"

    @property
    def label(self) -> str:
        """What is compared, for tables."""
        return f"{label(self.method)} against {label(self.baseline)}{self._stem}"


PRIMARY = (
    Contrast("svd+nog"),
    Contrast("svd+olr"),
    Contrast("svd+ow", control=WIDE),
    Contrast("svd+nog+ow+olr"),
)
CONTROLS = (
    Contrast("svd+nog", "svd+rescale"),
    Contrast("svd+olr", "svd+slow"),
    Contrast("svd+ow", "svd+ow-stiefel"),
    Contrast("svd+nog+ow", "svd+ow+slow"),
    Contrast("svd+nog+ow", "svd+nog+ow+slow"),
    Contrast("svd+nog+ow+olr", "svd+slow"),
    Contrast("svd", control=WIDE),
    Contrast("bn", "bn", control=WIDE),
)
"""What tells orthogonality from width and direction from step size; exploratory."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, its 95% t interval and the two-sided p of no difference."""

    mean: float
    std: float
    n: int
    low: float
    high: float
    p: float


def difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Student's paired t test of a - b.

    Args:
        a, b: equally many numbers, pairwise from equal seeds.

    Returns:
        What is not defined is NaN: with less than two pairs, or with differences that are equal
        up to rounding, as those of accuracies can be, which are counts of images.

    Example:
        >>> round(difference([2.0, 3.0, 4.1], [1.0, 2.0, 3.0]).mean, 4)
        1.0333
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    d = a - b
    mean = float(d.mean()) if len(d) else np.nan
    if len(d) < 2:
        return Difference(mean, np.nan, len(d), np.nan, np.nan, np.nan)
    if np.ptp(d) <= ROUNDING * np.abs([a, b]).max():
        return Difference(mean, 0.0, len(d), np.nan, np.nan, np.nan)
    std = float(d.std(ddof=1))
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(1 - LEVEL)
    return Difference(
        mean, std, len(d), float(interval.low), float(interval.high), float(test.pvalue)
    )


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's step-down procedure; NaN stays NaN and is not counted.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = [int(i) for i in np.argsort(values) if not np.isnan(values[i])]
    adjusted, highest = values.copy(), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[i]))
        adjusted[i] = highest
    return [float(value) for value in adjusted]


def smallest_detectable(std: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """The true mean difference that a two-sided paired t test of n pairs finds with this power.

    Args:
        std: of the paired differences.
        n: pairs.

    Returns:
        In the units of ``std``; NaN for less than two pairs.

    Example:
        >>> round(smallest_detectable(1.0, 5), 2)
        1.68
    """
    if n < 2 or not std > 0:
        return np.nan
    critical = stats.t.ppf(1 - level / 2, n - 1)

    def shortfall(shift: float) -> float:
        # A rejection with the wrong sign is no detection: only the right tail counts.
        return float(1 - stats.nct.cdf(critical, n - 1, shift) - power)

    shift = optimize.brentq(shortfall, 0, 2 * critical + 10)  # of the noncentral t distribution
    return std * float(shift) / float(np.sqrt(n))


def of_summary(key: str) -> Reading:
    """One figure of the summary."""
    return lambda run: run.summary[key]


def paired(a: Iterable[Run], b: Iterable[Run], reading: Reading) -> Difference:
    """The difference of one figure, over the seeds at which both runs have it."""
    first, second = ({int(r.summary["seed"]): reading(r) for r in runs} for runs in (a, b))
    seeds = sorted(first.keys() & second.keys())
    pairs = np.array([(first[seed], second[seed]) for seed in seeds], dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return difference(pairs[:, 0], pairs[:, 1])


def baseline_runs(study: Study, own: Selection, contrast: Contrast) -> tuple[Run, ...]:
    """The runs that a contrast's method is compared with: those that differ in the stem alone."""
    if contrast.control is None:
        return own.runs.get(contrast.baseline, ())
    other = study.beside(own, stem_kernel=contrast.control)
    return other.runs.get(contrast.baseline, ()) if other else ()


def contrasts(
    study: Study, task: str = "dbn", data: str | None = None, key: str = "error"
) -> pd.DataFrame:
    """Every method of a study against its baselines: primary family, controls, the rest to SVD.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set, or None for the study's.
        key: of the summaries: ``error``, ``recalibrated_error``, ``top1`` and so on.

    Returns:
        One row a contrast: family (primary, exploratory), name, contrast, method, baseline, mean,
        std, n, low, high (95% t interval), p and p_holm (primary only), detectable (the smallest
        true difference that so many seeds would show with power 80%).

    Raises:
        MissingRuns: the task has no runs.
    """
    own = study.select(task, data=data)
    family = PRIMARY if task == "dbn" else tuple(c for c in PRIMARY if c.control is None)
    named = {contrast.method for contrast in family if contrast.control is None}
    others = [Contrast(m) for m in own.runs if m not in named and m != "svd"]
    rows = []
    for contrast in (*family, *CONTROLS, *others):
        base = baseline_runs(study, own, contrast)
        found = paired(own.runs.get(contrast.method, ()), base, of_summary(key))
        primary = contrast in family
        if found.n == 0 and not primary:
            continue
        rows.append(
            {
                "family": "primary" if primary else "exploratory",
                "name": contrast.name,
                "contrast": contrast.label,
                "method": contrast.method,
                "baseline": contrast.baseline,
                "mean": found.mean,
                "std": found.std,
                "n": found.n,
                "low": found.low,
                "high": found.high,
                "p": found.p if primary else np.nan,
                "p_holm": np.nan,
                "detectable": smallest_detectable(found.std, found.n),
            }
        )
    frame = pd.DataFrame(rows)
    frame["p_holm"] = holm(frame["p"].to_list())
    remark = (
        f"Paired differences of {key} over equal seeds; primary: p adjusted by Holm over "
        f"{int(frame['p'].notna().sum())} contrasts; exploratory: unadjusted 95% t intervals"
    )
    wide = study.beside(own, stem_kernel=WIDE)
    return attach(frame, *shown_together(own, wide), remark=remark)


def detectable_remark(selection: Selection, key: str) -> str | None:
    """The smallest difference to svd that a selection's seeds can show, for beside a table."""
    base = selection.runs.get("svd", ())
    reading = of_summary(key)
    found = [paired(runs, base, reading) for m, runs in selection.runs.items() if m != "svd"]
    found = [d for d in found if d.std > 0]
    if not found:
        return None
    freedom = [d.n - 1 for d in found]
    pooled = float(np.sqrt(np.average([d.std**2 for d in found], weights=freedom)))
    shown = ", ".join(
        f"{smallest_detectable(pooled, n):.2g} points with {n} paired seeds"
        for n in sorted({d.n for d in found})
    )
    return (
        f"{selection.data}: the smallest true difference to SVD that is shown with power "
        f"{POWER:.0%} is {shown} (unadjusted level {LEVEL:.0%}; differences vary by {pooled:.2g})"
    )
