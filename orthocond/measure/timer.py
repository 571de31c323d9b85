"""Timer for cases that are compared with each other.

Note [Interleaved]
    All cases run in one process and take turns: each runs once per round, in an order that rotates.
    A temporary slowdown of the machine affects all cases, so the ratios within a round vary less
    than the times.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")
Report = Callable[[int, int], None]
WARMUP = 3  # rounds that are not counted


def now() -> float:
    """Return the seconds of a clock, after a GPU in use has finished its work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Seconds between marks, summed by the name of the mark that ends the span.

    Example:
        >>> watch = Stopwatch()
        >>> watch.start()
        >>> for name in ("forward", "backward", "forward"):
        ...     watch.mark(name)
        >>> list(watch.seconds)
        ['forward', 'backward']
    """

    def start(self) -> None:
        """Start from zero."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = now()

    def mark(self, name: str) -> None:
        """Add the seconds since the last mark, or since the start, to those of ``name``."""
        before, self._last = self._last, now()
        self.seconds[name] += self._last - before


def interleaved(
    cases: Mapping[str, Callable[[], T]],
    rounds: int,
    warmup: int = WARMUP,
    report: Report = lambda done, total: None,
) -> dict[str, list[T]]:
    """Return what each case returned in each round (Note [Interleaved]).

    Args:
        cases: name of each case: function that runs it, and may return what it measured.
        rounds: counted rounds.
        warmup: rounds before them, whose results are dropped.
        report: called after each round with the number of rounds done and the number of all rounds.

    Example:
        >>> interleaved({"a": lambda: 1, "b": lambda: 2}, rounds=2)
        {'a': [1, 1], 'b': [2, 2]}
    """
    names = list(cases)
    found: dict[str, list[T]] = {name: [] for name in names}
    for r in range(-warmup, rounds):
        first = r % len(names)
        for name in names[first:] + names[:first]:
            measured = cases[name]()
            if r >= 0:
                found[name].append(measured)
        report(r + 1 + warmup, rounds + warmup)
    return found


def median_seconds(
    cases: Mapping[str, Callable[[], object]], rounds: int, warmup: int = WARMUP
) -> dict[str, float]:
    """Return the median seconds of each case; the cases take turns.

    Args:
        cases: name of each case: function that runs it.
        rounds: counted rounds.
        warmup: rounds before them.

    Example:
        >>> list(median_seconds({"sum": lambda: sum(range(9))}, rounds=3))
        ['sum']
    """

    def timed(run: Callable[[], object]) -> float:
        start = now()
        run()
        return now() - start

    found = interleaved({n: partial(timed, run) for n, run in cases.items()}, rounds, warmup)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
