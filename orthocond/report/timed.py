"""Claims about time, judged from timing artifacts.

Note [A median's error]
    For a sample of n near a normal distribution the median's standard error is sqrt(pi / 2) s /
    sqrt(n) with s = (q3 - q1) / 1.349. The logarithm of a ratio of two medians has the sum of
    their relative variances. Rounds are interleaved, so that what disturbs a round disturbs both
    methods: the interval is wider than it need be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orthocond.report.bench import Bench, Finding
from orthocond.report.study import Study
from orthocond.report.style import label
from orthocond.report.tab6 import COMMAND
from orthocond.report.verdicts import Verdict, in_time, together

MODEL = "resnet50"  # of the paper's Table 6
PHASES = {"forward": "FP", "backward": "BP", "step": "FP + BP"}
QUARTILES, NORMAL = 1.349, 1.96  # of the normal distribution: q3 - q1 in deviations; 97.5%


def ratio(spread: Mapping[str, float], base: Mapping[str, float], rounds: int) -> tuple[float, ...]:
    """The ratio of two medians and its 95% interval.

    Args:
        spread, base: median, q1 and q3.
        rounds: that each median is of.

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


def _timed_together(study: Study) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Where -> method -> its figures, of the paper's network."""
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for timing in study.timings:
        data, environment = timing.data, timing.environment
        if data["task"] == "dbn" and data["model"] == MODEL:
            device = environment.get("device_name") or environment.get("device")
            size = f"batch {data['batch_size']}, {data['image_size']} pixels, {data['precision']}"
            cases.setdefault(f"{MODEL}, {device}, {size}", {})[data["method"]] = data
    return cases


@dataclass(frozen=True)
class Timed:
    """A phase of a training step takes longer than plain SVD's by no more than a claimed part.

    Args:
        method: canonical name.
        phase: ``forward``, ``backward`` (with the optimizer's step) or ``step``.
        excess: 0.02 is 2%.
    """

    method: str
    phase: str
    excess: float

    def judge(self, bench: Bench) -> Finding:
        """By the medians on each device that both methods were timed on."""
        limit = f"claimed {self.excess:.0%} more"
        part = f"{PHASES[self.phase]}, {label(self.method)} against SVD, {limit}"
        found, verdicts, source = [], [], []
        for where, methods in _timed_together(bench.study).items():
            if {self.method, "svd"} <= methods.keys():
                own, base = methods[self.method], methods["svd"]
                name = f"{self.phase}_ms"
                middle, low, high = ratio(own[name], base[name], own["rounds"])
                verdicts.append(in_time(low, high, self.excess))
                found.append(f"{middle - 1:+.1%} [{low - 1:+.1%}, {high - 1:+.1%}]")
                source.append(f"{where}, {own['rounds']} rounds")
        if not verdicts:
            method = self.method.removeprefix("svd+")
            command = f"{COMMAND} --method svd --method {method} --out {bench.study.folder}/timing"
            return Finding(Verdict.ABSENT, part, f"no timings of {MODEL}", command=command)
        return Finding(
            together(verdicts), part, "; ".join(found), n=len(found), source="; ".join(source)
        )
