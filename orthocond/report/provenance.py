"""Numbers together with the runs that they were computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import pandas as pd

from orthocond.artifacts.run_writer import Run
from orthocond.report.regimes import regime_lines
from orthocond.report.study import Selection
from orthocond.report.style import label


@dataclass(frozen=True)
class Source:
    """A run or a timing study that numbers were computed from.

    Args:
        run: its name.
        commit: the commit of the code that made it; None where it is unknown.
        config: the hash of its configuration; None for a timing study, which has none.
    """

    run: str
    commit: str | None
    config: str | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the source that names a run."""
        return cls(run.name, run.environment.get("commit"), run.config.get("hash"))


@dataclass(frozen=True)
class Provenance:
    """The origin of a figure's or table's numbers, as readers see it.

    Args:
        note: studies, seeds, commits, and how the numbers were made; shown with the caption.
        remarks: the regimes of the studies, which runs are missing or were left out, and warnings.
        commands: the commands that make the missing runs.
        runs: every run or timing study that the numbers come from.
    """

    note: str
    remarks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    runs: tuple[Source, ...] = ()

    @classmethod
    def of(cls, *selections: Selection, how: str, more: Iterable[str] = ()) -> Self:
        """Return the provenance of numbers that were computed from selections of runs.

        Args:
            selections: the runs.
            how: how the numbers were made; the note ends with it.
            more: remarks that follow those on the selections.
        """
        remarks = regime_lines(selections) + _seed_remarks(selections)
        remarks += [remark for s in selections for remark in _run_remarks(s)]
        return cls(
            note=". ".join(filter(None, ("; ".join(s.note for s in selections), how))),
            remarks=(*remarks, *more),
            commands=tuple(s.command for s in selections if s.missing),
            runs=tuple(Source.of(run) for s in selections for run in s.all_runs),
        )

    def text(self) -> str:
        """Return note, remarks and runs as one text, for the metadata of a file."""
        runs = [f"{s.run} commit {s.commit} config {s.config}" for s in self.runs]
        return "\n".join([self.note, *self.remarks, *runs])


@dataclass(frozen=True, eq=False)
class Numbers:
    """A frame of numbers and its provenance.

    Args:
        frame: the numbers, with the columns that its maker documents.
        provenance: where they come from.
    """

    frame: pd.DataFrame
    provenance: Provenance


def _seed_remarks(selections: Iterable[Selection]) -> list[str]:
    """Return a remark for each study whose methods were run with different seeds."""
    seeds: dict[str, set[tuple[int, ...]]] = {}
    for selection in selections:
        own = [tuple(r.config["seed"] for r in runs) for runs in selection.runs.values() if runs]
        seeds.setdefault(selection.title, set()).update(own)
    return [
        f"{title}: not all methods have the same seeds ({min(map(len, found))} to "
        f"{max(map(len, found))} each): two are compared fairly by their differences at equal seeds"
        for title, found in seeds.items()
        if len(found) > 1
    ]


def _run_remarks(selection: Selection) -> list[str]:
    """Return remarks on the runs of a selection that are missing, diverged or left out."""
    remarks = []
    if selection.missing:
        names = ", ".join(label(method) for method in selection.missing)
        remarks.append(f"{selection.title}: not run here: {names}")
    for method, count in sorted(selection.diverged.items()):
        if method in selection.runs:
            total = count + len(selection.runs[method])
            remarks.append(
                f"{selection.title}: {count} of {total} runs of {label(method)} diverged and are "
                "left out"
            )
    if selection.set_aside:
        remarks.append(
            f"{selection.title}: {selection.set_aside} runs in another configuration or study than "
            "this are left out"
        )
    return remarks
