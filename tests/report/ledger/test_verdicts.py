from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from orthocond.report.ledger.verdicts import (
    ABOVE,
    BELOW,
    Verdict,
    agreed,
    can_happen,
    in_time,
    near,
    of_size,
    on_side,
    together,
)
from orthocond.report.statistics import Difference, difference

HOLDS, FAILS, OPEN, ABSENT = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN, Verdict.ABSENT
INCOMPARABLE, SPLIT = Verdict.INCOMPARABLE, Verdict.SPLIT


def interval(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, 1.0, 5, low, high, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "side", "bound", "verdict"),
    [
        (-2, -1, BELOW, 0, HOLDS),
        (-2, -1, ABOVE, 0, FAILS),
        (1, 2, BELOW, 0, FAILS),
        (-1, 2, BELOW, 0, OPEN),
        (-0.2, 0.2, ABOVE, -0.3, HOLDS),  # no gain that counts
        (-0.4, 0.2, ABOVE, -0.3, OPEN),
        (-0.9, -0.4, ABOVE, -0.3, FAILS),
        (math.nan, math.nan, BELOW, 0, OPEN),
    ],
)
def test_a_side_is_decided_by_the_whole_interval(
    low: float, high: float, side: int, bound: float, verdict: Verdict
) -> None:
    assert on_side(interval(low, high), side, bound) == verdict


def test_the_primary_family_is_decided_by_the_adjusted_p() -> None:
    found = interval(-2, -1)
    assert on_side(found, BELOW, p=0.06) == OPEN
    assert on_side(found, BELOW, p=0.04) == HOLDS
    for side in (BELOW, ABOVE):  # at a margin, too: it is no larger only if it is not zero
        assert on_side(interval(1, 2), side, 0.3, p=0.06) == OPEN
        assert on_side(interval(-2, -1), side, -0.3, p=0.06) == OPEN
    assert on_side(interval(1, 2), BELOW, 0.3, p=0.04) == FAILS
    assert on_side(interval(-0.2, 0.2), BELOW, 0.3, p=0.9) == HOLDS  # may be zero: no harm
    assert of_size(found, BELOW, 0.5, p=0.06) == OPEN  # the size is reached, 0 is not excluded
    assert of_size(found, BELOW, 0.5, p=0.04) == HOLDS


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.9, -0.3, HOLDS),
        (-2.0, -1.0, HOLDS),  # more than was claimed
        (-0.5, -0.1, FAILS),  # there, but smaller
        (-0.9, 0.3, OPEN),  # too wide
        (-0.4, 0.3, FAILS),  # not shown, and smaller
        (0.1, 0.5, FAILS),  # the other side
        (math.nan, math.nan, OPEN),
    ],
)
def test_a_claimed_size_needs_an_effect_that_may_be_that_large(
    low: float, high: float, verdict: Verdict
) -> None:
    assert of_size(interval(low, high), BELOW, 0.6) == verdict
    assert of_size(interval(-high, -low), ABOVE, 0.6) == verdict


def test_a_claimed_level_is_met_within_half_a_decade() -> None:
    assert near(interval(-0.3, 0.4)) == HOLDS
    assert near(interval(-0.3, 0.7)) == OPEN
    assert near(interval(0.6, 0.7)) == near(interval(-3, -2)) == FAILS


def test_what_can_happen_is_shown_by_one_run_and_refuted_by_none() -> None:
    for runs in (2, 5, 8):
        for times in range(runs + 1):
            verdict, low, high = can_happen(times, runs)
            assert verdict == (HOLDS if times else OPEN)
            # One-sided 95% bounds: at the bound, what was seen has a probability of 5%.
            if times:
                assert stats.binom.sf(times - 1, runs, low) == pytest.approx(0.05)
            if times < runs:
                assert stats.binom.cdf(times, runs, high) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([FAILS], FAILS),
        ([HOLDS, FAILS], INCOMPARABLE),
        ([HOLDS, FAILS, OPEN], INCOMPARABLE),
        ([OPEN, FAILS], OPEN),
    ],
)
def test_measures_that_contradict_each_other_decide_nothing(
    verdicts: list[Verdict], expected: Verdict
) -> None:
    assert agreed(verdicts) == expected


def test_a_time_may_exceed_its_claim_by_rounding_only() -> None:
    assert in_time(1.001, 1.0249, 0.02) == HOLDS
    assert in_time(1.001, 1.03, 0.02) == OPEN
    assert in_time(1.03, 1.05, 0.02) == FAILS


def test_a_claim_is_as_strong_as_its_weakest_part() -> None:
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, OPEN]) == OPEN
    assert together([OPEN, ABSENT]) == ABSENT
    assert together([ABSENT, FAILS, HOLDS]) == FAILS
    assert together([HOLDS, OPEN, INCOMPARABLE]) == INCOMPARABLE
    assert together([INCOMPARABLE, FAILS]) == FAILS
    assert together([INCOMPARABLE, SPLIT, HOLDS]) == SPLIT
    assert together([OPEN, Verdict.REGIME]) == Verdict.REGIME


def test_without_an_effect_each_wrong_verdict_has_probability_one_in_forty() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 5))
    found = [on_side(difference(draw, np.zeros(5)), BELOW) for draw in draws]
    for verdict in (HOLDS, FAILS):
        assert np.mean([v == verdict for v in found]) == pytest.approx(0.025, abs=0.0105)  # 3 s.e.
