"""The verdict on a claim of the paper, by rule: written down before the runs were made.

Note [Rules]
    Every rule compares a 95% interval with what the paper claims.

    Side ("reduces", "hurts", "is best"): the difference of two methods, paired over equal seeds.
    It holds if the interval lies on the claimed side of the bound, and does not hold if it lies on
    the other side. The bound is 0; where the paper claims that something does *not* help or harm,
    it is ``MARGIN`` in the direction that the claim denies. Of the primary family, 0 is excluded
    where the p-value adjusted by Holm's procedure is below 0.05, not by the interval.

    Size ("by 0.6%"): it holds if 0 is excluded on the claimed side and the interval reaches the
    claimed size. It does not hold if neither is so. An effect that is there but smaller, and an
    interval that has both 0 and the claimed size in it, decide nothing: the first may be due to
    the network's size, the second is due to the number of seeds.

    Level ("around 1e5"): log10 over the seeds. It holds if the interval lies within half a decade
    of the number, and does not hold if it lies outside of that.

    Often ("can easily fail"): the share of runs in which it happened. It holds if the one-sided
    95% bounds of the share lie above one half, and does not hold if they lie below.

    Time ("2%"): the ratio of two medians. It holds if the interval lies below the claimed excess,
    with the half percent that rounding allows, and does not hold if it lies above.

    A claim of several parts holds if every part does, which needs no adjustment; it does not hold
    as soon as one part does not. All but the primary family is exploratory: no adjustment is made
    over parts or claims, and a claim of k parts that are all without effect is found not to hold
    with a probability of up to 2.5% k.

    Everything else is not decidable at this scale, and stands beside the smallest true difference
    that the seeds would show. With fewer than two pairs of runs it is not decidable here, and the
    command that makes the runs stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from scipy import stats

from orthocond.report.statistics import LEVEL, Difference

MARGIN = 0.3
"""Points of error; less is no effect. The smallest gain that the paper calls a boost (Sec. 5.1)."""

KAPPA_MARGIN = HALF_DECADE = 0.5
"""Of log10 kappa: nearer than this, two condition numbers have one order of magnitude."""

ROUNDING = 0.005
"""What a ratio that was rounded to a whole percent may be off by."""

BELOW, ABOVE = -1, 1


class Verdict(StrEnum):
    """What is said of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not decidable at this scale"
    ABSENT = "not decidable here"


def _excluded(found: Difference, p: float | None) -> bool:
    """Whether 0 is."""
    return p < LEVEL if p is not None else found.low > 0 or found.high < 0


def on_side(found: Difference, side: int, bound: float = 0.0, p: float | None = None) -> Verdict:
    """Whether a difference lies on the claimed side of a bound.

    Args:
        found: the difference and its interval.
        side: ``BELOW`` or ``ABOVE``.
        bound: what it is claimed to be below or above of.
        p: adjusted, where the difference is of the primary family; goes with the bound 0 only.

    Example:
        >>> print(on_side(Difference(-0.5, 0.2, 5, -0.7, -0.3, 0.01), BELOW))
        holds
    """
    if bound == 0 and p is not None:
        decided = _excluded(found, p)
    else:
        decided = found.low > bound or found.high < bound
    if not decided:
        return Verdict.OPEN
    return Verdict.HOLDS if side * (found.mean - bound) > 0 else Verdict.FAILS


def of_size(found: Difference, side: int, size: float, p: float | None = None) -> Verdict:
    """Whether a difference is on the claimed side of 0 and may be as large as claimed.

    Args:
        found: the difference and its interval; not a number where there is none.
        side: ``BELOW`` or ``ABOVE``.
        size: claimed, without its sign.
        p: adjusted, where the difference is of the primary family.

    Example:
        >>> print(of_size(Difference(0.0, 0.2, 5, -0.2, 0.2, 0.9), BELOW, 0.6))
        does not hold
    """
    far = found.low if side == BELOW else found.high
    there = _excluded(found, p) and side * found.mean > 0
    reached = side * far >= size
    if there and reached:
        return Verdict.HOLDS
    return Verdict.FAILS if not there and side * far < size else Verdict.OPEN


def near(found: Difference, within: float = HALF_DECADE) -> Verdict:
    """Whether a difference to a claimed level is small.

    Example:
        >>> print(near(Difference(3.1, 0.1, 5, 3.0, 3.2, 1e-6)))
        does not hold
    """
    if -within <= found.low and found.high <= within:
        return Verdict.HOLDS
    return Verdict.FAILS if found.low > within or found.high < -within else Verdict.OPEN


def often(times: int, runs: int) -> tuple[Verdict, float, float]:
    """Whether something happens in more than half of the runs, and the bounds of its share.

    Example:
        >>> print(often(0, 5)[0])
        does not hold
    """
    share = stats.binomtest(times, runs).proportion_ci(1 - 2 * LEVEL, "exact")
    low, high = float(share.low), float(share.high)
    if not low <= 0.5 <= high:
        return (Verdict.HOLDS if low > 0.5 else Verdict.FAILS), low, high
    return Verdict.OPEN, low, high


def in_time(low: float, high: float, excess: float) -> Verdict:
    """Whether a ratio of times exceeds 1 by no more than claimed.

    Example:
        >>> print(in_time(1.00, 1.02, 0.02))
        holds
    """
    bound = 1 + excess + ROUNDING
    return Verdict.HOLDS if high <= bound else Verdict.FAILS if low > bound else Verdict.OPEN


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a claim from those on its parts.

    Example:
        >>> print(together([Verdict.HOLDS, Verdict.OPEN]))
        not decidable at this scale
    """
    found = set(verdicts)
    order = (Verdict.FAILS, Verdict.ABSENT, Verdict.OPEN)
    return next((verdict for verdict in order if verdict in found), Verdict.HOLDS)
