"""Study: a folder of runs, and the selection of runs that may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from orthocond.artifacts.atomic_files import canonical_json, sha256
from orthocond.artifacts.run_writer import Run, find_runs
from orthocond.artifacts.timing_artifacts import Timing, find_timings
from orthocond.config.stored_settings import reduced
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, unknown
from orthocond.report.commands import as_ranges, train_command
from orthocond.report.study_names import study_names

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
        title: what titles and remarks call it: the data set, or the study and the data set where a
            larger study of the same folder has this data set.
        settings: configuration that all runs share.
        runs: canonical method -> its complete runs, in the order of their seeds.
        diverged: canonical method -> number of its runs that diverged.
        missing: requested methods that have no run.
        set_aside: number of runs of the same folder, task and data that are left out, because they
            have another configuration.
    """

    study: str
    folder: Path
    task: str
    data: str
    title: str
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
        name: name of the only study to read (see ``names``), or None for all.

    Raises:
        UserError: there is no such folder, data set or study.
        CorruptRun: a run was altered.
    """

    def __init__(
        self, folder: str | Path, data: str | None = None, name: str | None = None
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(
                f"no folder of runs {str(folder)!r}: give an existing folder with --runs"
            )
        self.data = data
        self.runs = [run for part in self._parts for run in find_runs(part)]
        self._all, self._names = self.runs, study_names(self.runs)
        self._hashes = {run.path: settings_hash(shared_settings(run)) for run in self.runs}
        if name is not None:
            self.runs = self._of(name)
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

    def names(self, task: str | None = None) -> list[str]:
        """Return the names of the studies of a task, or of all studies, sorted.

        A study is named after its folder (``study_names`` has the case of a mixed folder).
        """
        runs = [run for run in self.runs if task in (None, run.config["task"])]
        return sorted({self._names[run.path] for run in runs})

    @property
    def further(self) -> list[str]:
        """The names of studies whose data set a larger study of the folder has too."""
        shown = {self.main(task, data) for task in TASKS for data in self.data_sets(task)}
        return [name for name in self.names() if name not in shown]

    def only(self, *names: str) -> Self:
        """Return this folder with the runs of some studies alone, without reading them again.

        Raises:
            UserError: there is no study of a name.
        """
        part = copy(self)
        part.runs = [run for name in dict.fromkeys(names) for run in self._of(name)]
        return part

    def _of(self, name: str) -> list[Run]:
        runs = [run for run in self.runs if self._names[run.path] == name]
        if not runs:
            raise unknown("study", name, self.names() or ["none: there are no runs"])
        return runs

    def data_sets(self, task: str) -> list[str]:
        """Return the names of a task's data sets, the one with the largest study first."""
        sizes: dict[str, int] = {}
        own = [run for run in self.runs if run.config["task"] == task]
        of_study = Counter((run.config["data"]["name"], self._names[run.path]) for run in own)
        for (data, _), size in of_study.items():
            sizes[data] = max(size, sizes.get(data, 0))
        return [n for n, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]

    def _alike(self, runs: Iterable[Run]) -> list[Run]:
        """Return the largest group of runs of one study and one configuration."""
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            key = (self._names[run.path], self._hashes[run.path])
            groups.setdefault(key, []).append(run)
        return max(groups.values(), key=len, default=[])

    def main(self, task: str, data: str) -> str | None:
        """Return the name of the largest study of a data set in the folder; None without runs."""
        own = self._alike(r for r in self._all if _is_of(r, task, data))
        return self._names[own[0].path] if own else None

    def select(
        self,
        task: str,
        methods: Iterable[str] | None = None,
        data: str | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> Selection:
        """Select runs that differ in method and seed only.

        A data set may have several studies, and a study several configurations. Then the largest
        group of comparable runs is taken, and the selection says how many runs of its folder were
        set aside.

        Args:
            task: ``dbn`` or ``gcp``.
            methods: canonical names; None takes all methods that have runs.
            data: name of the data set; None takes the study's, or the one with most runs.
            name: name of the study; None takes the one with the largest group.
            settings: settings that the runs must have, such as ``stem_kernel=11``.

        Raises:
            MissingRuns: there are no such runs; the message has the command that makes them.
        """
        wanted = None if methods is None else tuple(methods)
        within = self if name is None else self.only(name)
        data = data or self.data or next(iter(within.data_sets(task)), None)
        of_data = [
            run
            for run in within.runs
            if _is_of(run, task, str(data))
            and all(run.settings.get(key) == value for key, value in settings.items())
        ]
        chosen = self._alike(of_data)
        if not chosen:
            raise self.missing(task, wanted or ("svd",))
        present = {run.config["method"] for run in chosen}
        names = tuple(sorted(present)) if wanted is None else wanted
        shared, folder = shared_settings(chosen[0]), chosen[0].path.parent
        if not present.intersection(names):
            raise self.missing(task, names, shared)
        ended = [run for run in chosen if run.summary["status"] == "complete"]
        study = self._names[chosen[0].path]
        return Selection(
            study=study,
            folder=folder,
            task=task,
            data=str(data),
            title=str(data) if study == self.main(task, str(data)) else f"{study} ({data})",
            settings=shared,
            runs={m: _by_seed(ended, m) for m in names if m in present},
            diverged=Counter(r.config["method"] for r in chosen if r not in ended),
            missing=tuple(m for m in names if m not in present),
            set_aside=sum(run.path.parent == folder for run in of_data) - len(chosen),
        )

    def beside(self, own: Selection, **changed: Any) -> Selection | None:
        """Select runs of a selection's study whose settings differ in ``changed`` alone.

        An example is ``stem_kernel=11``. The result is None where there are no such runs.
        """
        try:
            other = self.select(own.task, data=own.data, name=own.study, **changed)
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


def _is_of(run: Run, task: str, data: str) -> bool:
    return run.config["task"] == task and run.config["data"]["name"] == data


def _by_seed(runs: list[Run], method: str) -> tuple[Run, ...]:
    own = [run for run in runs if run.config["method"] == method]
    return tuple(sorted(own, key=lambda run: int(run.config["seed"])))
