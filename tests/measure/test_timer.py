"""Turns, rounds and sums of the timer; no test asserts a time."""

from __future__ import annotations

import pytest

from orthocond.measure import timer
from orthocond.measure.timer import Stopwatch, interleaved, median_seconds


def test_cases_take_turns_in_an_order_that_rotates():
    order: list[str] = []
    told: list[tuple[int, int]] = []

    def step(name):
        return lambda: order.append(name) or len(order)

    cases = {n: step(n) for n in "abc"}
    found = interleaved(cases, 6, report=lambda *p: told.append(p))
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert {rounds.count(r) for r in rounds} == {3} and len(set(rounds)) == 3  # each first as often
    assert len(rounds) == 9 and [len(found[n]) for n in "abc"] == [6, 6, 6]  # 3 rounds warm up
    assert min(f for results in found.values() for f in results) == 10
    assert told[-1] == (9, 9)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""
    times = [0.0]
    monkeypatch.setattr(timer, "now", lambda: times[0])
    return lambda seconds: times.__setitem__(0, times[0] + seconds)


def test_medians_are_over_the_rounds_after_the_warm_up(clock):
    spent = {"a": iter([90.0, 1.0, 2.0, 6.0]), "b": iter([70.0, 5.0, 4.0, 3.0])}
    cases = {name: lambda s=seconds: clock(next(s)) for name, seconds in spent.items()}
    assert median_seconds(cases, rounds=3, warmup=1) == {"a": 2, "b": 4}


def test_a_stopwatch_sums_the_spans_of_each_name(clock):
    watch = Stopwatch()
    for total in (1.0, 2.0):  # a new start forgets what was before
        watch.start()
        for name, seconds in (("forward", 1.0), ("gradient", 4.0), ("forward", total)):
            clock(seconds)
            watch.mark(name)
        assert watch.seconds == {"forward": 1 + total, "gradient": 4}
        clock(100)
