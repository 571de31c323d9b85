"""Where the numbers of a figure or a table come from, carried in ``DataFrame.attrs``."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from orthocond.report.study import Selection
from orthocond.report.style import label


def attach(frame: pd.DataFrame, *selections: Selection, remark: str = "") -> pd.DataFrame:
    """The frame, with what its readers must know of its runs.

    Args:
        frame: the data of a figure or table.
        selections: the runs that it was made from.
        remark: how the numbers were made, for the end of the note.

    Returns:
        The same frame; ``attrs`` has ``note`` (for captions), ``remarks`` (what is missing or was
        set aside), ``commands`` (that make what is missing) and ``runs`` (run, commit and
        configuration hash of each).
    """
    notes = "; ".join(selection.note for selection in selections)
    frame.attrs["note"] = ". ".join(part for part in (notes, remark) if part)
    frame.attrs["remarks"] = _of_seeds(selections) + [r for s in selections for r in _remarks(s)]
    frame.attrs["commands"] = [s.command for s in selections if s.missing]
    frame.attrs["runs"] = [
        {
            "run": run.name,
            "commit": run.environment.get("commit"),
            "config": run.config.get("hash"),
        }
        for s in selections
        for run in s.all_runs
    ]
    return frame


def _of_seeds(selections: Iterable[Selection]) -> list[str]:
    """Where the means of a data set's methods are over different seeds."""
    seeds: dict[str, set[tuple[int, ...]]] = {}
    for selection in selections:
        own = [tuple(r.config["seed"] for r in runs) for runs in selection.runs.values() if runs]
        seeds.setdefault(selection.data, set()).update(own)
    return [
        f"{data}: not all methods have the same seeds ({min(map(len, found))} to "
        f"{max(map(len, found))} each): two are compared fairly by their differences at equal seeds"
        for data, found in seeds.items()
        if len(found) > 1
    ]


def _remarks(selection: Selection) -> list[str]:
    remarks = []
    if selection.missing:
        names = ", ".join(label(method) for method in selection.missing)
        remarks.append(f"{selection.data}: not run here: {names}")
    for method, count in sorted(selection.diverged.items()):
        if method in selection.runs:
            total = count + len(selection.runs[method])
            remarks.append(
                f"{selection.data}: {count} of {total} runs of {label(method)} diverged and are "
                "left out"
            )
    if selection.set_aside:
        remarks.append(
            f"{selection.data}: {selection.set_aside} runs in another configuration or study than "
            "this are left out"
        )
    return remarks


def as_text(frame: pd.DataFrame) -> str:
    """Note, remarks and runs in one text, for a file's metadata."""
    runs = [f"{r['run']} commit {r['commit']} config {r['config']}" for r in frame.attrs["runs"]]
    return "\n".join([frame.attrs["note"], *frame.attrs["remarks"], *runs])
