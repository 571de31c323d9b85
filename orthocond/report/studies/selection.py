"""Selection: the runs of a study that may be compared, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthocond.artifacts.atomic_files import canonical_json, sha256
from orthocond.artifacts.run_reader import Run
from orthocond.config.stored_settings import reduced
from orthocond.report.commands import as_ranges, train_command

OWN = ("method", "seed")  # settings that may differ between runs that are compared


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


def shown_together(own: Selection, other: Selection | None) -> list[Selection]:
    """Return two selections that appear together, so neither counts the other as set aside.

    Both have the same task and data set. Without a second selection only the first is returned.
    """
    if other is None or other.hash == own.hash:
        return [own]
    shown = len(other.all_runs) + sum(other.diverged.values())
    return [replace(own, set_aside=own.set_aside - shown), replace(other, set_aside=0)]
