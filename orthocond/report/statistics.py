"""Paired differences between methods at equal seeds, and the effects that they can detect.

Runs with equal seeds start from equal weights and see equal batches, so differences are taken seed
by seed. The contrasts of ``PRIMARY`` were fixed before the runs were made and are one family:
their p-values are adjusted by Holm's procedure. All other contrasts are exploratory: they have
unadjusted 95% t intervals and no p-value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from orthocond.artifacts.run_reader import Run
from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN, TASKS
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.style import label

LEVEL, POWER = 0.05, 0.8
EQUAL = 1e-9  # smaller differences, relative to the numbers compared, are rounding errors
WIDE = 11  # pixels; stem kernel of the controls: receptive field of the skew orthogonal convolution

Reading = Callable[[Run], float | None]
"""Function that returns one number of a run; None or not finite where the run has none."""


@dataclass(frozen=True)
class Contrast:
    """Comparison of two methods: the first minus the second.

    Args:
        method: canonical name of the first method.
        baseline: canonical name of the second method.
        control: kernel size of the baseline's stem in pixels, where it is not the method's. With
            ``WIDE``, the baseline has the receptive field that the skew orthogonal convolution
            gives to ``ow``, but not its orthogonality.
    """

    method: str
    baseline: str = PLAIN
    control: int | None = None

    @property
    def _stem(self) -> str:
        return f" ({self.control}×{self.control} stem)" if self.control else ""

    @property
    def name(self) -> str:
        """The comparison in canonical names."""
        return f"{self.method} - {self.baseline}{self._stem}"

    @property
    def label(self) -> str:
        """The comparison as tables write it."""
        return f"{label(self.method)} against {label(self.baseline)}{self._stem}"


PRIMARY = (
    Contrast("svd+nog"),
    Contrast("svd+olr"),
    Contrast("svd+ow", control=WIDE),
    Contrast("svd+nog+ow+olr"),
)
CONTROLS = (
    Contrast("svd+nog", "svd+rescale"),
    Contrast("svd+nog", "svd+muon"),
    Contrast("svd+nog", "svd+polargrad"),
    Contrast("svd+olr", "svd+slow"),
    Contrast("svd+ow", "svd+ow-stiefel"),
    Contrast("svd+ow", "svd+ow-conv"),
    Contrast("svd+ow-conv", "svd+ow-stiefel"),
    Contrast("svd+nog+ow", "svd+ow+slow"),
    Contrast("svd+nog+ow", "svd+nog+ow+slow"),
    Contrast("svd+nog+ow+olr", "svd+slow"),
    Contrast(PLAIN, control=WIDE),
    Contrast("bn", "bn", control=WIDE),
)
"""Exploratory contrasts that separate the effect of orthogonality from that of the stem's width,
and the effect of the direction from that of the step size. Two compare NOG with later methods that
use its polar factor."""


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with its 95% t interval and two-sided p-value."""

    mean: float
    std: float
    n: int
    low: float
    high: float
    p: float


def difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Return the mean of a - b with Student's paired t test.

    Args:
        a, b: equally many numbers; each pair comes from one seed.

    Returns:
        The difference. Values that are not defined are NaN. This is so with fewer than two pairs,
        and with differences that are equal up to rounding. Differences of accuracies can be equal
        because accuracies are counts of images.

    Example:
        >>> round(difference([2.0, 3.0, 4.1], [1.0, 2.0, 3.0]).mean, 4)
        1.0333
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    d = a - b
    mean = float(d.mean()) if len(d) else np.nan
    if len(d) < 2:
        return Difference(mean, np.nan, len(d), np.nan, np.nan, np.nan)
    if np.ptp(d) <= EQUAL * np.abs([a, b]).max():
        return Difference(mean, 0.0, len(d), np.nan, np.nan, np.nan)
    std = float(d.std(ddof=1))
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(1 - LEVEL)
    return Difference(
        mean, std, len(d), float(interval.low), float(interval.high), float(test.pvalue)
    )


def holm(p: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's step-down procedure.

    NaN stays NaN and counts: a comparison that was named before the runs belongs to the family,
    also while its runs are missing. Else the first runs of a study would face a milder test.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = [int(i) for i in np.argsort(values) if not np.isnan(values[i])]
    adjusted, highest = values.copy(), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = highest
    return [float(value) for value in adjusted]


def smallest_detectable(std: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """Return the true mean difference that a paired t test detects with the given power.

    Args:
        std: standard deviation of the paired differences.
        n: number of pairs.
        level: significance level of the two-sided test.
        power: probability of detection.

    Returns:
        The difference in the units of ``std``; NaN for fewer than two pairs or ``std`` = 0.

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

    shift = optimize.brentq(shortfall, 0, 2 * critical + 10)  # noncentrality of the t distribution
    return std * float(shift) / float(np.sqrt(n))


def of_summary(key: str) -> Reading:
    """Return a reading of one number of the summary."""
    return lambda run: run.summary[key]


def final_error(run: Run) -> float | None:
    """Return the error by which runs are compared: the one at the end of training, in percent.

    It is measured with recalibrated statistics where the task has any. Stale moving averages are
    an effect of their own. None where training did not end with an evaluation.
    """
    errors = (run.summary[key] for key in ("recalibrated_error", "error"))
    return next((error for error in errors if error is not None), None)


def pairs(a: Iterable[Run], b: Iterable[Run], reading: Reading) -> np.ndarray:
    """Return one number of both methods (n, 2), one row per seed at which both have it."""
    first, second = ({int(r.summary["seed"]): reading(r) for r in runs} for runs in (a, b))
    seeds = sorted(first.keys() & second.keys())
    both = np.array([(first[seed], second[seed]) for seed in seeds], dtype=float).reshape(-1, 2)
    return both[np.isfinite(both).all(axis=1)]


def paired(a: Iterable[Run], b: Iterable[Run], reading: Reading) -> Difference:
    """Return the difference of one number, over the seeds at which both methods have it."""
    return difference(*pairs(a, b, reading).T)


def baseline_runs(study: Study, own: Selection, contrast: Contrast) -> tuple[Run, ...]:
    """Return the runs of a contrast's baseline; none where there are no such runs.

    With ``control``, the settings of these runs differ from those of ``own`` in the stem alone.
    """
    if contrast.control is None:
        return own.runs.get(contrast.baseline, ())
    other = study.beside(own, stem_kernel=contrast.control)
    return other.runs.get(contrast.baseline, ()) if other else ()


def contrasts(
    study: Study,
    task: str = DBN.name,
    data: str | None = None,
    name: str | None = None,
    reading: Reading = final_error,
) -> pd.DataFrame:
    """Compare every method of a study with its baselines.

    The contrasts are the primary family, the controls, and every other method against SVD.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        data: name of the data set, or None for the study's.
        name: name of the study, or None for the largest one of the data set.
        reading: the number of a run that is compared.

    Returns:
        One row per contrast. Columns family (primary, exploratory), name, contrast, method,
        baseline, mean, std, n, low, high (95% t interval), p and p_holm (primary only), detectable
        (the smallest true difference that n seeds would show with power 80%).

    Raises:
        MissingRuns: the task has no runs.
    """
    own = study.select(task, data=data, name=name)
    has_control = TASKS[task].wide_stem
    family = tuple(c for c in PRIMARY if has_control or c.control is None)
    named = {contrast.method for contrast in family if contrast.control is None}
    others = [Contrast(m) for m in own.runs if m not in named and m != PLAIN]
    rows = []
    for contrast in (*family, *CONTROLS, *others):
        base = baseline_runs(study, own, contrast)
        found = paired(own.runs.get(contrast.method, ()), base, reading)
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
                **asdict(found),
                "p": found.p if primary else np.nan,
                "p_holm": np.nan,
                "detectable": smallest_detectable(found.std, found.n),
            }
        )
    frame = pd.DataFrame(rows)
    first = frame.index < len(family)
    frame.loc[first, "p_holm"] = holm(frame["p"][first].to_list())
    return frame


def detectable_remark(selection: Selection, key: str) -> str | None:
    """Return a remark on the smallest difference to SVD that a selection's seeds can show.

    The remark is None where no difference can be computed.
    """
    base = selection.runs.get(PLAIN, ())
    reading = of_summary(key)
    found = [paired(runs, base, reading) for m, runs in selection.runs.items() if m != PLAIN]
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
        f"{selection.title}: the smallest true difference to SVD that is shown with power "
        f"{POWER:.0%} is {shown} (unadjusted level {LEVEL:.0%}; differences vary by {pooled:.2g})"
    )
