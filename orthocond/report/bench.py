"""The runs behind a ledger: selected once, and what is found in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from orthocond.report.commands import train_command
from orthocond.report.statistics import PRIMARY, Contrast, Difference, baseline_runs, contrasts
from orthocond.report.study import MissingRuns, Selection, Study
from orthocond.report.style import label
from orthocond.report.tables import PAPER_PRESETS, is_data_set
from orthocond.report.verdicts import Verdict
from orthocond.runs import Run

ENOUGH = 2  # pairs of runs, below which there is no interval
SEEDS = range(5)  # of the command that makes missing runs


class Need(NamedTuple):
    """Runs that are missing: of a task, on the paper's data set if named, with a wider stem."""

    task: str
    data: str | None
    control: int | None
    method: str


@dataclass(frozen=True)
class Finding:
    """What the runs say of one part of a claim.

    Args:
        verdict: by the rules.
        part: what was compared, and what is claimed of it.
        found: the numbers, in words; why there are none.
        mean, low, high, n, p, detectable: the numbers; p where the part is of the primary family.
        beside: the same of the measure that is shown with it.
        source: study, data and seeds.
        runs: that were read.
        needs: runs that are missing.
        command: makes what is missing and is no run.
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
    beside: str = ""
    source: str = ""
    runs: tuple[Run, ...] = ()
    needs: tuple[Need, ...] = ()
    command: str = ""


class Bench:
    """A study whose selections are made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._made: dict[tuple[str, ...], Any] = {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def selection(self, task: str, data: str | None = None) -> Selection:
        """The runs of a task, on the paper's data set where one is named.

        Raises:
            MissingRuns: there is none.
        """
        return self._once(("selection", task, str(data)), lambda: self._select(task, data))

    def _select(self, task: str, data: str | None) -> Selection:
        names = self.study.data_sets(task)
        own = [name for name in names if data is None or is_data_set(name, data)]
        if not own:
            raise MissingRuns(f"no runs of task {task!r}" + f" on {data}" * bool(data))
        return self.study.select(task, data=own[0])

    def note(self, own: Selection) -> str:
        """Study, data, seeds and commit of a selection."""
        return self._once(("note", own.task, own.data), lambda: own.note)

    def adjusted(self, contrast: Contrast, task: str, data: str | None) -> float | None:
        """Holm's p of a contrast of the primary family; None of any other."""
        if contrast not in PRIMARY or (task != "dbn" and contrast.control):
            return None
        own = self.selection(task, data)
        key = ("family", task, own.data)
        table = self._once(key, lambda: contrasts(self.study, task, own.data))
        primary = table[table["family"] == "primary"].set_index("method")
        return float(primary.at[contrast.method, "p_holm"])

    def base(self, contrast: Contrast, task: str, data: str | None) -> tuple[Run, ...]:
        """The runs that a contrast's method is compared with."""
        own = self.selection(task, data)
        key = ("base", task, own.data, contrast.baseline, str(contrast.control))
        return self._once(key, lambda: baseline_runs(self.study, own, contrast))

    def commands(self, needs: Iterable[Need]) -> list[str]:
        """Make the runs that are missing, in as few commands as there are configurations."""
        methods: dict[tuple[str, str | None, int | None], list[str]] = {}
        for need in dict.fromkeys(needs):
            methods.setdefault(need[:3], []).append(need.method)
        return [self._command(*where, names) for where, names in methods.items()]

    def _command(self, task: str, data: str | None, control: int | None, methods: list[str]) -> str:
        try:
            own = self.selection(task, data)
        except MissingRuns:
            if data is not None:
                return f"orthocond train --preset {PAPER_PRESETS[data]} --out {self.study.folder}"
            command = train_command(task, methods, self.study.folder, seeds=SEEDS)
            return command + f" --set stem_kernel={control}" * bool(control)
        settings = dict(own.settings) | ({"stem_kernel": control} if control else {})
        return train_command(task, methods, own.folder, settings, {*SEEDS, *own.seeds})


class Criterion(Protocol):
    """One part of a claim."""

    def judge(self, bench: Bench) -> Finding:
        """The verdict and its numbers."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that asserts a result.

    Args:
        section: of the paper.
        quote: its words; what is left out is '…'.
        parts: what must be so, every one.
        evidence: what shows it: figures and tables (``fig2``), equations of the book (``eq-20b``).
        reading: how a sentence that leaves something open is read.
    """

    section: str
    quote: str
    parts: tuple[Criterion, ...]
    evidence: tuple[str, ...]
    reading: str = ""


def absent(part: str, reason: object, needs: Iterable[Need]) -> Finding:
    """Of a part whose task has no runs at all."""
    return Finding(Verdict.ABSENT, part, str(reason), needs=tuple(needs))


def too_few(part: str, source: str, own: Selection, needs: Iterable[Need]) -> Finding:
    """Of a part with fewer than two pairs of runs.

    Args:
        part: in words.
        source: study, data and seeds.
        own: the runs of the task.
        needs: all that the part is about; those of which there are enough are left out.
    """
    needs = [n for n in needs if n.control or len(own.runs.get(n.method, ())) < ENOUGH]
    found = [f"fewer than {ENOUGH} pairs of runs"]
    for need in needs:
        lost = own.diverged.get(need.method)
        if lost and not need.control:
            found.append(f"{lost} of {label(need.method)} diverged")
    text = "; ".join(found)
    return Finding(Verdict.ABSENT, part, text, source=source, needs=tuple(needs))


def judged(
    bench: Bench,
    part: str,
    needs: Sequence[Need],
    find: Callable[[Selection], Finding | None],
) -> Finding:
    """What is found in the runs of the task and data that the needs name, or what is missing.

    Args:
        bench: the study.
        part: in words.
        needs: all that the part is about.
        find: judges the runs; None where there are too few of them.
    """
    try:
        own = bench.selection(needs[0].task, needs[0].data)
    except MissingRuns as missing:
        return absent(part, missing, needs)
    return find(own) or too_few(part, bench.note(own), own, needs)


def numbers(found: Difference, unit: str, p: float | None = None) -> str:
    """A difference as it stands in the ledger: two decimals, and more where it is small.

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
