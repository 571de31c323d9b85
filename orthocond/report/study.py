"""Study: a folder of runs, and the selection of runs that may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_search import count_incomplete, find_runs
from orthocond.artifacts.timing_artifacts import Timing, find_timings
from orthocond.config.tasks import TASKS
from orthocond.errors import unknown
from orthocond.report.commands import MissingRuns, train_command
from orthocond.report.studies.run_folders import refuse_copies, with_studies
from orthocond.report.studies.selection import Selection, settings_hash, shared_settings
from orthocond.report.studies.sizes import data_sets, size
from orthocond.report.studies.study_names import study_names


class Study:
    """Finished runs of a folder and of the studies in it.

    Args:
        folder: folder of one study (``runs/NAME``) or of several (``runs``).
        data: the only data set to select from, or None for all.
        name: name of the only study to read (see ``names``), or None for all.
        also: further folders of studies. Studies of the same name are one study.

    Raises:
        UserError: there is no such folder, data set or study, or a run is there twice.
        CorruptRun: a run was altered.
    """

    def __init__(
        self,
        folder: str | Path,
        data: str | None = None,
        name: str | None = None,
        also: Iterable[str | Path] = (),
    ) -> None:
        self.folder, self.data = Path(folder), data
        self._parts = with_studies([self.folder, *map(Path, also)])
        self.runs = [run for part in self._parts for run in find_runs(part)]
        self._all, self._names = self.runs, study_names(self.runs)
        self._hashes = {run.path: settings_hash(shared_settings(run)) for run in self.runs}
        refuse_copies(self.runs, self._names)
        if name is not None:
            self.runs = self._of(name)
        names = sorted({run.config["data"]["name"] for run in self.runs})
        if data is not None and data not in names:
            raise unknown("data set", data, names or ["none: there are no runs"])

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
        runs = [r for r in self.runs if self.data in (None, r.config["data"]["name"])]
        kinds = {(run.config["task"], run.config["data"]["name"]) for run in runs}
        shown = {self.main(task, data) for task, data in kinds}
        return sorted({self._names[run.path] for run in runs} - shown)

    def only(self, *names: str) -> Self:
        """Return this folder with the runs of some studies alone, without reading them again.

        Raises:
            UserError: there is no study of a name.
        """
        part = copy(self)
        part.runs = [run for name in dict.fromkeys(names) for run in self._of(name)]
        return part

    def keeping(self, wanted: Callable[[Run], bool]) -> Self:
        """Return this folder as if it had only the wanted runs, without reading them again."""
        part = copy(self)
        part.runs = part._all = [run for run in self._all if wanted(run)]
        part._names = study_names(part.runs)
        return part

    def _of(self, name: str) -> list[Run]:
        runs = [run for run in self.runs if self._names[run.path] == name]
        if not runs:
            raise unknown("study", name, self.names() or ["none: there are no runs"])
        return runs

    def data_sets(self, task: str) -> list[str]:
        """Return the names of a task's data sets, the one with the largest study first."""
        return data_sets((r for r in self.runs if r.config["task"] == task), self._names)

    def _alike(self, runs: Iterable[Run]) -> list[Run]:
        """Return the largest group of runs of one study and one configuration (see ``size``)."""
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            key = (self._names[run.path], self._hashes[run.path])
            groups.setdefault(key, []).append(run)
        return max(groups.values(), key=size, default=[])

    def largest(self, task: str) -> list[Run]:
        """Return the runs of one configuration of a task's largest study, if any."""
        return self._alike(r for r in self.runs if _is_of(r, task, self.data))

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
            MissingRuns: there are no such runs, with the command that makes them, or all diverged.
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
            raise self.missing(task, wanted or (), data)
        present = {run.config["method"] for run in chosen}
        names = tuple(sorted(present)) if wanted is None else wanted
        shared, folders = shared_settings(chosen[0]), {run.path.parent for run in chosen}
        if not present.intersection(names):
            raise self.missing(task, names, beside=chosen)
        ended = [run for run in chosen if run.summary["status"] == "complete"]
        if not any(run.config["method"] in names for run in ended):
            raise MissingRuns(
                f"every run of task {task!r} for this in {str(self.folder)!r} diverged"
            )
        study = self._names[chosen[0].path]
        return Selection(
            study=study,
            folder=chosen[0].path.parent,
            task=task,
            data=str(data),
            title=str(data) if study == self.main(task, str(data)) else f"{study} ({data})",
            settings=shared,
            runs={m: _by_seed(ended, m) for m in names if m in present},
            diverged=Counter(r.config["method"] for r in chosen if r not in ended),
            missing=tuple(m for m in names if m not in present),
            set_aside=sum(run.path.parent in folders for run in of_data) - len(chosen),
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
        self,
        task: str,
        methods: Iterable[str],
        data: str | None = None,
        beside: Sequence[Run] = (),
    ) -> MissingRuns:
        """Return the error that says how to make the runs of these methods.

        Without methods, the command makes the whole committed study. With runs to stand ``beside``,
        the new runs get their settings, seeds and folder.
        """
        if not self._all and (started := _started(self._parts)):
            return MissingRuns(f"no complete runs in {str(self.folder)!r}: {started}")
        out, settings = self.folder, None
        if beside:
            out, settings = beside[0].path.parent, shared_settings(beside[0])
        seeds = {run.config["seed"] for run in beside}
        command = train_command(task, methods, out, settings, seeds, data)
        return MissingRuns(f"no runs of task {task!r} for this in {str(self.folder)!r}", command)


def _started(folders: Iterable[Path]) -> str:
    """Return what to do about the incomplete runs in some folders; empty if there are none."""
    count = sum(map(count_incomplete, folders))
    runs, them = ("1 run is", "it") if count == 1 else (f"{count} runs are", "them")
    return f"{runs} not complete: the same train command finishes {them}" if count else ""


def _is_of(run: Run, task: str, data: str | None) -> bool:
    return run.config["task"] == task and data in (None, run.config["data"]["name"])


def _by_seed(runs: list[Run], method: str) -> tuple[Run, ...]:
    own = [run for run in runs if run.config["method"] == method]
    return tuple(sorted(own, key=lambda run: int(run.config["seed"])))
