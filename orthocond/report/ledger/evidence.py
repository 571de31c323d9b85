"""Evidence behind the ledger: the selected runs of a study, and findings about them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.timing_artifacts import Timing
from orthocond.config.tasks import TASKS
from orthocond.report.commands import MissingRuns, train_command
from orthocond.report.ledger.verdicts import Verdict
from orthocond.report.statistics import PRIMARY, Contrast, Difference, baseline_runs, contrasts
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.tables.comparison import PAPER_PRESETS, is_data_set

ENOUGH = 2  # pairs of runs; fewer pairs give no interval
SEEDS = range(5)  # seeds in a command that makes missing runs
STAND_INS = {"CIFAR100": "tiny-imagenet-100"}
"""Data sets that take the place of one of the paper where there are no runs on it."""


class Need(NamedTuple):
    """Runs that a criterion requires.

    Args:
        task: ``dbn`` or ``gcp``.
        data: data set of the paper; None takes the one with most runs.
        control: kernel size of the stem in pixels, or None for the usual stem.
        method: canonical name.
    """

    task: str
    data: str | None
    control: int | None
    method: str


@dataclass(frozen=True)
class Finding:
    """Finding for one part of a claim.

    Args:
        verdict: verdict by the rules of ``verdicts``.
        part: what was compared, and what the paper claims about it.
        found: the numbers in words, or the reason why there are none.
        mean, low, high, n, p, detectable: the numbers; p only for the primary family.
        measures: the measures that decided, by key of ``MEASURES``.
        beside: finding for the measure that is shown next to this one, in words.
        source: study, data set and seeds.
        runs: the runs that were read.
        needs: the runs that are missing.
        command: makes what is missing where that is not a training run (a timing).
    """

    verdict: Verdict
    part: str
    found: str
    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    p: float = np.nan
    detectable: float = np.nan
    measures: tuple[str, ...] = ()
    beside: str = ""
    source: str = ""
    runs: tuple[Run, ...] = ()
    needs: tuple[Need, ...] = ()
    command: str = ""


class Bench:
    """A study with its timings, and a cache of its selections, notes and contrasts.

    Args:
        study: the runs.
        timings: timings besides those in the folder of the study.
    """

    def __init__(self, study: Study, timings: Iterable[Timing] = ()) -> None:
        self.study, self.timings = study, [*study.timings, *timings]
        self._made: dict[tuple[str, ...], Any] = {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def selection(self, task: str, data: str | None = None) -> Selection:
        """Return the runs of a task, on a data set of the paper if one is given.

        Raises:
            MissingRuns: there are no such runs.
        """
        return self._once(("selection", task, str(data)), lambda: self._select(task, data))

    def _select(self, task: str, data: str | None) -> Selection:
        names = self.study.data_sets(task)
        own = [name for name in names if data is None or is_data_set(name, data)]
        own = own or [name for name in names if name == STAND_INS.get(str(data))]
        if not own:
            raise MissingRuns(f"no runs of task {task!r}" + f" on {data}" * bool(data))
        return self.study.select(task, data=own[0])

    def note(self, own: Selection) -> str:
        """Return study, data set, seeds and commit of a selection, in words."""
        return self._once(("note", own.task, own.data), lambda: own.note)

    def adjusted(self, contrast: Contrast, task: str, data: str | None) -> float | None:
        """Return a contrast's p-value adjusted by Holm; None outside of the primary family."""
        if contrast not in PRIMARY or (contrast.control and not TASKS[task].wide_stem):
            return None
        own = self.selection(task, data)
        key = ("family", task, own.data)
        table = self._once(key, lambda: contrasts(self.study, task, own.data))
        primary = table[table["family"] == "primary"].set_index("method")
        return float(primary.at[contrast.method, "p_holm"])

    def base(self, contrast: Contrast, task: str, data: str | None) -> tuple[Run, ...]:
        """Return the runs that a contrast's method is compared with."""
        own = self.selection(task, data)
        key = ("base", task, own.data, contrast.baseline, str(contrast.control))
        return self._once(key, lambda: baseline_runs(self.study, own, contrast))

    def commands(self, needs: Iterable[Need]) -> list[str]:
        """Return the commands that make the missing runs, one per configuration."""
        methods: dict[tuple[str, str | None, int | None], list[str]] = {}
        for need in dict.fromkeys(needs):
            methods.setdefault(need[:3], []).append(need.method)
        return [self._command(*where, names) for where, names in methods.items()]

    def _command(self, task: str, data: str | None, control: int | None, methods: list[str]) -> str:
        try:
            own = self.selection(task, data)
        except MissingRuns:
            if data is not None:
                out = shlex.quote(str(self.study.folder))
                return f"orthocond train --preset {PAPER_PRESETS[data]} --out {out}"
            command = train_command(task, methods, self.study.folder, seeds=SEEDS)
            return command + f" --set stem_kernel={control}" * bool(control)
        settings = dict(own.settings) | ({"stem_kernel": control} if control else {})
        return train_command(task, methods, own.folder, settings, {*SEEDS, *own.seeds})


class Criterion(Protocol):
    """One part of a claim that can be judged."""

    def judge(self, bench: Bench) -> Finding:
        """Return the verdict and its numbers."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that asserts a result.

    Args:
        section: section of the paper, with a figure or table.
        quote: the paper's words, from the beginning to the end of what the sentence asserts.
        parts: criteria; the claim holds if every one holds.
        evidence: figures and tables (``fig2``) and equations of the book (``eq-20b``).
        reading: our interpretation of a sentence that is not precise.
        listed_as: the verdict on a sentence that is not judged: a conjecture or a misprint.
    """

    section: str
    quote: str
    parts: tuple[Criterion, ...]
    evidence: tuple[str, ...]
    reading: str = ""
    listed_as: Verdict | None = None


def numbers(found: Difference, unit: str, p: float | None = None) -> str:
    """Return a difference as the ledger prints it: two decimals, or more for small values.

    Example:
        >>> numbers(Difference(-0.5, 0.2, 5, -0.7, -0.3, 0.01), "points")
        '−0.50 [−0.70, −0.30] points, n = 5'
        >>> numbers(Difference(0.002, 0.001, 5, 0.001, 0.003, 0.01), "")
        '0.0020 [0.0010, 0.0030], n = 5'
    """
    values = [value for value in (found.mean, found.low, found.high) if not np.isnan(value)]
    largest = max(map(abs, values))
    places = 2 if largest == 0 else max(2, 1 - math.floor(math.log10(largest)))
    mean, *interval = (f"{value:z.{places}f}" for value in values)
    text = f"{mean} [{', '.join(interval)}]" if interval else mean
    family = "" if p is None or np.isnan(p) else f", p = {p:.2g} (Holm)"
    return f"{text} {unit}".rstrip().replace("-", "−") + f", n = {found.n}{family}"
