"""Rules that turn runs into a verdict on a claim.

The rules were fixed before the runs were made, except for those that ``changes`` lists.

Note [Rules]
    Every rule compares a 95% interval with the paper's claim.

    Side ("reduces", "hurts", "is best"): the rule uses the difference of two methods, paired over
    equal seeds. The claim holds if the interval lies on the claimed side of a bound. It does not
    hold if the interval lies on the other side. For errors the bound is usually 0. Where the paper
    claims that something does *not* help or harm, the bound is ``MARGIN``, in the direction that
    the claim denies. For condition numbers the bound is ``TENTH`` of a decade on the claimed side:
    a smaller change is no effect. In the primary family, 0 is excluded only if the p-value adjusted
    by Holm's procedure is below 0.05, also where the bound is ``MARGIN``.

    Condition numbers at different ranks: kappa on the support belongs to a support, so two ranks
    are not comparable by it. They are compared by kappa at a common rank, if the runs have it, and
    by kappa with eps. If the two contradict each other, the methods are not comparable.

    Size ("by 0.6%"): the claim holds if 0 is excluded on the claimed side and the interval
    reaches the claimed size. It does not hold if the interval ends before the claimed size. An
    interval that contains both 0 and the claimed size stays undecided: there are too few seeds. A
    size that the paper measured on CIFAR100 is judged on the runs with a hundred classes only.

    Error: the one at the end of training, with recalibrated statistics where the task has any
    (``statistics.final_error``). The error with moving averages is shown beside it.

    Level ("around 1e5"): the rule uses the mean of log10 over the seeds. The claim holds if the
    interval lies within half a decade of the claimed number. It does not hold if the interval
    lies outside of that range. It is not comparable if our kappa is rounding noise: the level then
    depends on the arithmetic, and the paper does not say which one it used.

    Possibility ("can easily fail"): the claim holds if the event happened in a run. Runs without
    the event do not refute it.

    Time ("2%"): the rule uses the ratio of two medians. The claim holds if the interval lies
    below the claimed excess plus half a percent, which rounding allows. It does not hold if the
    interval lies above.

    Generalisation: a claim about the error is judged only in a study in which plain SVD has a
    generalisation gap of at least five points (``regime_rule``). In other studies it is not
    decidable in this regime.

    Several studies: a claim is judged in every study of its task and data set. It holds, or does
    not hold, if every study that decides says so. Otherwise the studies disagree. If the measures
    of one study contradict each other, a study with fewer of these measures decides nothing
    (``judging``). Times are judged in the same way on each device.

    A claim of several parts holds if every part holds; this needs no adjustment. It does not hold
    as soon as one part does not hold. Otherwise it is not comparable as soon as one part is not.
    Everything outside of the primary family is exploratory: no adjustment is made over parts or
    claims. If a claim has k parts and none has an effect, the probability of the verdict "does not
    hold" is up to 2.5% k.

    Explanation: a sentence that explains something, or says that it is gone, is not decidable
    where our runs do not have it.

    A conjecture asserts no result and gets no verdict. A misprint is listed as a misprint, and the
    corrected statement is judged.

    All other claims are not decidable at this scale; the ledger then gives the smallest true
    difference that the seeds would show. With fewer than two pairs of runs a claim is not
    decidable here; the ledger then gives the command that makes the runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from scipy import stats

from orthocond.report.statistics import LEVEL, Difference

MARGIN = 0.3
"""Points of error: a smaller difference counts as no effect.

0.3 is the boost of Sec. 5.1; Sec. 6.2 calls 0.2 points a boost, too."""

HALF_DECADE = 0.5
"""Difference in log10 kappa below which two condition numbers have one order of magnitude."""

TENTH = 0.1
"""Difference in log10 kappa below which a change of a condition number counts as no effect."""

ROUNDING = 0.005
"""Largest rounding error of a ratio that was rounded to a whole percent."""

BELOW, ABOVE = -1, 1


class Verdict(StrEnum):
    """Verdict on a claim, or on a part of one."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not decidable at this scale"
    REGIME = "not decidable in this regime"
    SPLIT = "studies disagree"
    ABSENT = "not decidable here"
    INCOMPARABLE = "not comparable"
    CONJECTURE = "no verdict: a conjecture"
    MISPRINT = "a misprint"


def _excluded(found: Difference, p: float | None) -> bool:
    """Return whether 0 is excluded by the adjusted p-value or, without one, by the interval."""
    return p < LEVEL if p is not None else found.low > 0 or found.high < 0


def on_side(found: Difference, side: int, bound: float = 0.0, p: float | None = None) -> Verdict:
    """Judge whether a difference lies on the claimed side of a bound.

    Args:
        found: the difference and its interval.
        side: claimed side, ``BELOW`` or ``ABOVE``.
        bound: the difference is claimed to be below or above this value.
        p: adjusted p-value of a difference in the primary family, else None. A verdict that
            implies a difference from 0 needs it below 0.05.

    Example:
        >>> print(on_side(Difference(-0.5, 0.2, 5, -0.7, -0.3, 0.01), BELOW))
        holds
    """
    above, below = found.low > bound, found.high < bound
    excludes_zero = (above and bound >= 0) or (below and bound <= 0)
    if not (above or below) or (excludes_zero and not _excluded(found, p)):
        return Verdict.OPEN
    return Verdict.HOLDS if side * (found.mean - bound) > 0 else Verdict.FAILS


def of_size(found: Difference, side: int, size: float, p: float | None = None) -> Verdict:
    """Judge whether a difference may be as large as claimed, and is on the claimed side of 0.

    Args:
        found: the difference and its interval; NaN where there is no interval.
        side: claimed side of 0, ``BELOW`` or ``ABOVE``.
        size: claimed absolute value.
        p: adjusted p-value of a difference in the primary family, else None.

    Example:
        >>> print(of_size(Difference(0.0, 0.2, 5, -0.2, 0.2, 0.9), BELOW, 0.6))
        does not hold
    """
    far = found.low if side == BELOW else found.high
    if side * far < size:
        return Verdict.FAILS
    there = _excluded(found, p) and side * found.mean > 0
    return Verdict.HOLDS if there else Verdict.OPEN


def near(found: Difference, within: float = HALF_DECADE) -> Verdict:
    """Judge whether a difference to a claimed level is small.

    Example:
        >>> print(near(Difference(3.1, 0.1, 5, 3.0, 3.2, 1e-6)))
        does not hold
    """
    if -within <= found.low and found.high <= within:
        return Verdict.HOLDS
    return Verdict.FAILS if found.low > within or found.high < -within else Verdict.OPEN


def can_happen(times: int, runs: int) -> tuple[Verdict, float, float]:
    """Judge whether an event can happen in a run.

    Returns:
        The verdict, and the lower and upper one-sided 95% bound of the share of runs.

    Example:
        >>> print(can_happen(0, 5)[0])
        not decidable at this scale
    """
    share = stats.binomtest(times, runs).proportion_ci(1 - 2 * LEVEL, "exact")
    verdict = Verdict.HOLDS if times else Verdict.OPEN
    return verdict, float(share.low), float(share.high)


def agreed(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on one comparison that is judged by several measures.

    Measures that contradict each other decide nothing: the methods are not comparable.

    Example:
        >>> print(agreed([Verdict.HOLDS, Verdict.FAILS]))
        not comparable
        >>> print(agreed([Verdict.HOLDS, Verdict.OPEN]))
        not decidable at this scale
    """
    found = set(verdicts)
    if len(found) == 1:
        return found.pop()
    return Verdict.INCOMPARABLE if {Verdict.HOLDS, Verdict.FAILS} <= found else Verdict.OPEN


def in_time(low: float, high: float, excess: float) -> Verdict:
    """Judge whether a ratio of times exceeds 1 by no more than claimed.

    Args:
        low, high: 95% interval of the ratio.
        excess: claimed fraction of additional time; 0.02 is 2%.

    Example:
        >>> print(in_time(1.00, 1.02, 0.02))
        holds
    """
    bound = 1 + excess + ROUNDING
    return Verdict.HOLDS if high <= bound else Verdict.FAILS if low > bound else Verdict.OPEN


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a claim from the verdicts on its parts.

    Example:
        >>> print(together([Verdict.HOLDS, Verdict.OPEN]))
        not decidable at this scale
    """
    found = set(verdicts)
    order = (
        Verdict.FAILS,
        Verdict.SPLIT,
        Verdict.INCOMPARABLE,
        Verdict.ABSENT,
        Verdict.REGIME,
        Verdict.OPEN,
    )
    return next((verdict for verdict in order if verdict in found), Verdict.HOLDS)
