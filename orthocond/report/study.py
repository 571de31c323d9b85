"""A study: a folder of runs, and what of it may be compared with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from orthocond.errors import UserError, unknown
from orthocond.files import canonical_json, sha256
from orthocond.history import reduced
from orthocond.report.commands import as_ranges, train_command
from orthocond.runs import Run, find_runs
from orthocond.timings import Timing, find_timings

OWN = ("method", "seed")  # what differs between runs that are compared


class MissingRuns(UserError):
    """The runs that a figure or a table needs are not there; the message has the command."""


def shared_settings(run: Run) -> dict[str, Any]:
    """Return a run's settings without those that may differ within a comparison."""
    return {key: value for key, value in run.settings.items() if key not in OWN}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that name a shared configuration."""
    return sha256(canonical_json(reduced(settings)))[:12]


@dataclass(frozen=True)
class Selection:
    """Runs that may be compared: one task, one data set, one configuration.

    Args:
        study: the name of the study.
        folder: where it lies.
        task: ``dbn`` or ``gcp``.
        data: name of the data set.
        settings: the configuration that all runs share.
        runs: canonical method -> its runs that came to their end, by seed.
        diverged: canonical method -> how many of its runs diverged.
        missing: methods that were asked for and have no run.
        set_aside: runs of the same task and data in another configuration or study.
    """

    study: str
    folder: Path
    task: str
    data: str
    settings: Mapping[str, Any]
    runs: Mapping[str, tuple[Run, ...]]
    diverged: Mapping[str, int]
    missing: tuple[str, ...]
    set_aside: int

    @property
    def all_runs(self) -> list[Run]:
        """Every run of the selection."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds that any method has."""
        return sorted({run.config["seed"] for run in self.all_runs})

    @property
    def commits(self) -> list[str]:
        """The commits that the runs were made from."""
        return sorted({str(run.environment.get("commit") or "unknown") for run in self.all_runs})

    @property
    def hash(self) -> str:
        """Names the shared configuration."""
        return settings_hash(self.settings)

    @property
    def command(self) -> str:
        """Makes the missing runs."""
        return train_command(self.task, self.missing, self.folder, self.settings, self.seeds)

    @property
    def note(self) -> str:
        """Study, seeds, commit and configuration, for a caption."""
        commits = ", ".join(commit[:7] + "+" * commit.endswith("+") for commit in self.commits)
        seeds = as_ranges(self.seeds)
        return (
            f"{self.study}: {self.data}, {self.settings['model']}, "
            f"seed{'s' * (len(self.seeds) > 1)} {seeds}, commit {commits}, config {self.hash}"
        )


class Study:
    """The complete runs of a folder, or of the studies in it.

    Args:
        folder: ``runs/NAME``, or ``runs`` itself.
        data: keep this data set only.

    Raises:
        UserError: no such folder or data set.
        CorruptRun: a run was altered.
    """

    def __init__(self, folder: str | Path, data: str | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"no folder of runs {str(folder)!r}: name one with --runs")
        self.data = data
        self.runs = [run for part in self._parts for run in find_runs(part)]
        names = sorted({run.config["data"]["name"] for run in self.runs})
        if data is not None and data not in names:
            raise unknown("data set", data, names or ["none: there are no runs"])

    @cached_property
    def _parts(self) -> list[Path]:
        return [self.folder, *sorted(p for p in self.folder.iterdir() if p.is_dir())]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def timings(self) -> list[Timing]:
        """The timing artifacts, verified."""
        return [timing for part in self._parts for timing in find_timings(part)]

    @property
    def main_task(self) -> str:
        """Decorrelated BN, or the only task that there are runs of."""
        return "dbn" if self.data_sets("dbn") or not self.data_sets("gcp") else "gcp"

    def data_sets(self, task: str) -> list[str]:
        """Names of a task's data sets, the one with most runs first."""
        names = Counter(r.config["data"]["name"] for r in self.runs if r.config["task"] == task)
        return [n for n, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))]

    def select(
        self,
        task: str,
        methods: Iterable[str] | None = None,
        data: str | None = None,
        **settings: Any,
    ) -> Selection:
        """The runs of some methods that differ in method and seed only.

        Where a data set has runs of several configurations or studies, those are taken of which
        there are most, and the selection says how many were set aside.

        Args:
            task: ``dbn`` or ``gcp``.
            methods: canonical names; None takes all that there are.
            data: name of the data set; None takes the study's, or the one with most runs.
            settings: keys of the configuration, such as ``stem_kernel=11``, that must be so.

        Raises:
            MissingRuns: there is none; the message is the command that makes them.
        """
        wanted = None if methods is None else tuple(methods)
        data = data or self.data or next(iter(self.data_sets(task)), None)
        of_data = [
            r
            for r in self.runs
            if r.config["task"] == task
            and r.config["data"]["name"] == data
            and all(r.settings.get(key) == value for key, value in settings.items())
        ]
        alike: dict[tuple[Path, str], list[Run]] = {}
        for run in of_data:
            key = (run.path.parent, settings_hash(shared_settings(run)))
            alike.setdefault(key, []).append(run)
        if not alike:
            raise self.missing(task, wanted or ("svd",))
        chosen = max(alike.values(), key=len)
        present = {run.config["method"] for run in chosen}
        names = tuple(sorted(present)) if wanted is None else wanted
        shared = shared_settings(chosen[0])
        if not present.intersection(names):
            raise self.missing(task, names, shared)
        ended = [run for run in chosen if run.summary["status"] == "complete"]
        return Selection(
            study=chosen[0].path.resolve().parent.name,
            folder=chosen[0].path.parent,
            task=task,
            data=str(data),
            settings=shared,
            runs={m: _by_seed(ended, m) for m in names if m in present},
            diverged=Counter(r.config["method"] for r in chosen if r not in ended),
            missing=tuple(m for m in names if m not in present),
            set_aside=len(of_data) - len(chosen),
        )

    def beside(self, own: Selection, **changed: Any) -> Selection | None:
        """The runs that differ from a selection's in these settings alone, such as another stem.

        None where there are none.
        """
        try:
            other = self.select(own.task, data=own.data, **changed)
        except MissingRuns:
            return None
        undone = dict(other.settings) | {key: own.settings[key] for key in changed}
        return other if undone == own.settings else None

    def missing(
        self, task: str, methods: Iterable[str], settings: Mapping[str, Any] | None = None
    ) -> MissingRuns:
        """The error that tells how to make the runs of these methods."""
        command = train_command(task, methods, self.folder, settings)
        return MissingRuns(f"no runs of task {task!r} for this in {str(self.folder)!r}: {command}")


def shown_together(own: Selection, other: Selection | None) -> list[Selection]:
    """Two selections of one task and data set, neither of which counts the other as set aside."""
    if other is None or other.hash == own.hash:
        return [own]
    shown = len(other.all_runs) + sum(other.diverged.values())
    return [replace(own, set_aside=own.set_aside - shown), replace(other, set_aside=0)]


def _by_seed(runs: list[Run], method: str) -> tuple[Run, ...]:
    own = [run for run in runs if run.config["method"] == method]
    return tuple(sorted(own, key=lambda run: int(run.config["seed"])))
