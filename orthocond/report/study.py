"""Study: a folder of runs, and the selection of runs that may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from orthocond.artifacts.atomic_files import canonical_json, sha256
from orthocond.artifacts.run_writer import Run, find_runs
from orthocond.artifacts.timing_artifacts import Timing, find_timings
from orthocond.config.stored_settings import reduced
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, unknown
from orthocond.report.commands import as_ranges, train_command

OWN = ("method", "seed")  # settings that may differ between runs that are compared


class MissingRuns(UserError):
    """Error for missing runs of a figure or a table, with the command that makes them."""


def shared_settings(run: Run) -> dict[str, Any]:
    """Return a run's settings without those that may differ within a comparison."""
    return {key: value for key, value in run.settings.items() if key not in OWN}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that identify a shared configuration."""
    return sha256(canonical_json(reduced(settings)))[:12]


@dataclass(frozen=True)
class Selection:
    """Runs that may be compared: one task, one data set, one configuration.

    Args:
        study: name of the study.
        folder: folder of the study.
        task: ``dbn`` or ``gcp``.
        data: name of the data set.
        settings: configuration that all runs share.
        runs: canonical method -> its complete runs, in the order of their seeds.
        diverged: canonical method -> number of its runs that diverged.
        missing: requested methods that have no run.
        set_aside: number of runs of the same task and data that are left out, because they have
            another configuration or belong to another study.
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
        """All complete runs of the selection."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds of all methods together, sorted."""
        return sorted({run.config["seed"] for run in self.all_runs})

    @property
    def commits(self) -> list[str]:
        """The commits of the code that made the runs."""
        return sorted({str(run.environment.get("commit") or "unknown") for run in self.all_runs})

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that identify the shared configuration."""
        return settings_hash(self.settings)

    @property
    def command(self) -> str:
        """The command that makes the missing runs."""
        return train_command(self.task, self.missing, self.folder, self.settings, self.seeds)

    @property
    def note(self) -> str:
        """Study, data set, model, seeds, commits and configuration, for a caption."""
        commits = ", ".join(commit[:7] + "+" * commit.endswith("+") for commit in self.commits)
        seeds = as_ranges(self.seeds)
        return (
            f"{self.study}: {self.data}, {self.settings['model']}, "
            f"seed{'s' * (len(self.seeds) > 1)} {seeds}, commit {commits}, config {self.hash}"
        )


class Study:
    """Finished runs of a folder and of the studies in it.

    Args:
        folder: folder of one study (``runs/NAME``) or of several (``runs``).
        data: the only data set to select from, or None for all.

    Raises:
        UserError: there is no such folder or data set.
        CorruptRun: a run was altered.
    """

    def __init__(self, folder: str | Path, data: str | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(
                f"no folder of runs {str(folder)!r}: give an existing folder with --runs"
            )
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
        """The name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def timings(self) -> list[Timing]:
        """The verified timing artifacts."""
        return [timing for part in self._parts for timing in find_timings(part)]

    @property
    def main_task(self) -> str:
        """Name of the first task that has runs; decorrelated BN where no task has any."""
        return next((task for task in TASKS if self.data_sets(task)), next(iter(TASKS)))

    def data_sets(self, task: str) -> list[str]:
        """Return the names of a task's data sets, with the one that has most runs first."""
        names = Counter(r.config["data"]["name"] for r in self.runs if r.config["task"] == task)
        return [n for n, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))]

    def select(
        self,
        task: str,
        methods: Iterable[str] | None = None,
        data: str | None = None,
        **settings: Any,
    ) -> Selection:
        """Select runs that differ in method and seed only.

        A data set may have runs of several configurations or studies. Then the largest group of
        comparable runs is taken, and the selection says how many runs were set aside.

        Args:
            task: ``dbn`` or ``gcp``.
            methods: canonical names; None takes all methods that have runs.
            data: name of the data set; None takes the study's, or the one with most runs.
            settings: settings that the runs must have, such as ``stem_kernel=11``.

        Raises:
            MissingRuns: there are no such runs; the message has the command that makes them.
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
        """Select runs whose settings differ from a selection's in ``changed`` alone.

        An example is ``stem_kernel=11``. The result is None where there are no such runs.
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
        """Return the error that says how to make the runs of these methods."""
        command = train_command(task, methods, self.folder, settings)
        return MissingRuns(f"no runs of task {task!r} for this in {str(self.folder)!r}: {command}")


def shown_together(own: Selection, other: Selection | None) -> list[Selection]:
    """Return two selections that appear together, so neither counts the other as set aside.

    Both have the same task and data set. Without a second selection only the first is returned.
    """
    if other is None or other.hash == own.hash:
        return [own]
    shown = len(other.all_runs) + sum(other.diverged.values())
    return [replace(own, set_aside=own.set_aside - shown), replace(other, set_aside=0)]


def _by_seed(runs: list[Run], method: str) -> tuple[Run, ...]:
    own = [run for run in runs if run.config["method"] == method]
    return tuple(sorted(own, key=lambda run: int(run.config["seed"])))
