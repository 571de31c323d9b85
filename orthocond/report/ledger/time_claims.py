"""Criteria for claims about time, which are judged from timing artifacts.

Note [A median's error]
    For n samples of a nearly normal distribution, the standard error of the median is
    sqrt(pi / 2) s / sqrt(n) with s = (q3 - q1) / 1.349. The variance of the logarithm of a ratio
    of two medians is the sum of their relative variances. The rounds of the two methods are
    interleaved, so a disturbance hits both. The formula ignores this, which makes the interval
    wider than necessary.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orthocond.artifacts.timing_artifacts import Timing
from orthocond.config.methods import PLAIN
from orthocond.config.tasks import DBN
from orthocond.report.ledger.evidence import Bench, Finding
from orthocond.report.ledger.judging import over_studies
from orthocond.report.ledger.verdicts import Verdict, in_time
from orthocond.report.style import label
from orthocond.report.tables.tab6 import COMMAND, PHASES

MODEL = "resnet50"  # the network of the paper's Table 6
QUARTILES, NORMAL = 1.349, 1.96  # normal distribution: q3 - q1, and the 97.5% quantile


def ratio(spread: Mapping[str, float], base: Mapping[str, float], rounds: int) -> tuple[float, ...]:
    """Return the ratio of two medians and its 95% interval.

    Args:
        spread: median, q1 and q3 of the numerator.
        base: median, q1 and q3 of the denominator.
        rounds: number of measurements behind each median.

    Returns:
        The ratio, and the lower and upper end of the interval (Note [A median's error]).

    Example:
        >>> ratio({"median": 2.0, "q1": 2.0, "q3": 2.0}, {"median": 1.0, "q1": 1.0, "q3": 1.0}, 20)
        (2.0, 2.0, 2.0)
    """
    variance = sum(
        math.pi / 2 * ((s["q3"] - s["q1"]) / QUARTILES / s["median"]) ** 2 / rounds
        for s in (spread, base)
    )
    middle, error = spread["median"] / base["median"], math.exp(NORMAL * math.sqrt(variance))
    return middle, middle / error, middle * error


def _timed_together(timings: Iterable[Timing]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return place (network, device, sizes) -> method -> timing, for the paper's network."""
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for timing in timings:
        data, environment = timing.data, timing.environment
        if data["task"] == DBN.name and data["model"] == MODEL:
            device = environment.get("device_name") or environment.get("device")
            size = f"batch {data['batch_size']}, {data['image_size']} pixels, {data['precision']}"
            cases.setdefault(f"{MODEL}, {device}, {size}", {})[data["method"]] = data
    return cases


@dataclass(frozen=True)
class Timed:
    """Criterion: a method slows a phase of the training step by at most a claimed fraction.

    The method is compared with plain SVD.

    Args:
        method: canonical name.
        phase: ``forward``, ``backward`` (with the optimizer's step) or ``step``.
        excess: claimed fraction of additional time; 0.02 is 2%.
    """

    method: str
    phase: str
    excess: float

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by the medians on each device on which both methods were timed."""
        limit = f"claimed {self.excess:.0%} more"
        part = f"{PHASES[self.phase]}, {label(self.method)} against SVD, {limit}"
        found, verdicts, source = [], [], []
        for where, methods in _timed_together(bench.timings).items():
            if {self.method, PLAIN} <= methods.keys():
                own, base = methods[self.method], methods[PLAIN]
                name = f"{self.phase}_ms"
                middle, low, high = ratio(own[name], base[name], own["rounds"])
                verdicts.append(in_time(low, high, self.excess))
                found.append(f"{middle - 1:+.1%} [{low - 1:+.1%}, {high - 1:+.1%}]")
                source.append(f"{where}, {own['rounds']} rounds")
        if not verdicts:
            method = self.method.removeprefix("svd+")
            out = shlex.quote(f"{bench.study.folder}/timing")
            command = f"{COMMAND} --method svd --method {method} --out {out}"
            return Finding(Verdict.ABSENT, part, f"no timings of {MODEL}", command=command)
        return Finding(
            over_studies(verdicts), part, "; ".join(found), n=len(found), source="; ".join(source)
        )
