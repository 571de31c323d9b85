"""Numbers together with the runs that they were computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Self

import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.regimes import regime_lines
from orthocond.report.studies.selection import Selection
from orthocond.report.style import label

SET_ASIDE = "runs in another configuration or study than this are left out"


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
        how: how the numbers were made.
        remarks: the regimes of the studies, which runs are missing or were left out, and warnings.
        commands: the commands that make the missing runs.
        runs: every run or timing study that the numbers come from.
        origin: studies, seeds, commits and configurations.
        background: those of the remarks that readers of a web page rarely need.
    """

    how: str
    remarks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    runs: tuple[Source, ...] = ()
    origin: str = ""
    background: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """The origin and how the numbers were made; shown with the caption."""
        return ". ".join(filter(None, (self.origin, self.how)))

    @property
    def shown(self) -> list[str]:
        """The sentences that a web page shows: all but those in ``folded``."""
        return [self.how, *(text for text in self.remarks if text not in self.background)]

    @property
    def folded(self) -> str:
        """The origin and the background, folded away, as HTML; empty without an origin."""
        return folded([self.origin, *self.background]) if self.origin else ""

    @classmethod
    def of(cls, *selections: Selection, how: str, more: Iterable[str] = ()) -> Self:
        """Return the provenance of numbers that were computed from selections of runs.

        Args:
            selections: the runs.
            how: how the numbers were made; the note ends with it.
            more: remarks that follow those on the selections.
        """
        regimes = regime_lines(selections)
        remarks = regimes + _seed_remarks(selections)
        remarks += [remark for s in selections for remark in _run_remarks(s)]
        return cls(
            how=how,
            remarks=(*remarks, *more),
            commands=tuple(s.command for s in selections if s.missing),
            runs=tuple(Source.of(run) for s in selections for run in s.all_runs),
            origin="; ".join(s.note for s in selections),
            background=(*regimes, *(text for text in remarks if text.endswith(SET_ASIDE))),
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


def folded(texts: Iterable[str], summary: str = "Origin of these numbers") -> str:
    """Return sentences as HTML that a page shows when the reader asks for it.

    Args:
        texts: the sentences, as plain text.
        summary: what a reader clicks to open them.

    Returns:
        A ``details`` element.

    Example:
        >>> folded(["seeds 0-4"], "Runs")
        '<details class="origin"><summary>Runs</summary><p>seeds 0-4.</p></details>'
    """
    paragraphs = "".join(f"<p>{escape(text.rstrip('.'))}.</p>" for text in texts)
    return f'<details class="origin"><summary>{summary}</summary>{paragraphs}</details>'


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
        remarks.append(f"{selection.title}: {selection.set_aside} {SET_ASIDE}")
    return remarks
