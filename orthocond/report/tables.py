"""What the tables share: the paper's numbers beside ours, as numbers; ``render`` writes them out.

A table is a DataFrame: rows are canonical methods, columns are pairs (group, statistic), a group
being the paper or a data set. ``attrs`` has ``title``, ``labels`` (method -> row label), ``cells``
(what stands where we have no number) and what ``provenance.attach`` puts there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from orthocond.errors import unknown
from orthocond.methods import Method
from orthocond.paper import TABLES, published
from orthocond.report.provenance import attach
from orthocond.report.study import MissingRuns, Selection, Study
from orthocond.report.style import label
from orthocond.runs import Run

NOT_RUN = "not run here"
LOST = "lost"
PAPER_PRESETS = {
    "CIFAR10": "paper-dbn-cifar10",
    "CIFAR100": "paper-dbn-cifar100",
    "ImageNet": "paper-gcp-imagenet",
}
"""The paper's data set: the preset that repeats its settings."""

Column = tuple[str, str]


def is_data_set(name: str, paper: str) -> bool:
    """Whether a data set of ours is the paper's, or a copy of it such as ``cifar10-jpeg``.

    Example:
        >>> is_data_set("cifar10-jpeg", "CIFAR10"), is_data_set("cifar100", "CIFAR10")
        (True, False)
    """
    return re.fullmatch(rf"{paper}(-.*)?", name, re.IGNORECASE) is not None


def moments(values: Iterable[float | None], name: str) -> dict[str, float]:
    """Mean and sample standard deviation, without what is missing."""
    known = np.array([v for v in values if v is not None], dtype=float)
    known = known[~np.isnan(known)]
    return {
        f"{name} mean": known.mean() if len(known) else np.nan,
        f"{name} std": known.std(ddof=1) if len(known) > 1 else np.nan,
    }


def summaries(runs: Iterable[Run], key: str) -> list[float | None]:
    """One figure of each run's summary."""
    return [run.summary[key] for run in runs]


def paper_columns(number: int, methods: Iterable[str]) -> pd.DataFrame:
    """The published numbers of a table; cells that the source text lost are NaN.

    A heading such as 'CIFAR100 mean' becomes the column ('paper: CIFAR100', 'error mean').
    """
    columns: dict[Column, list[float]] = {}
    for heading in TABLES[number].columns:
        data, _, statistic = heading.rpartition(" ")
        error = statistic in ("mean", "std", "min")
        column = (f"paper: {data}", f"error {statistic}") if error else ("paper", heading)
        cells = (published(number, method, heading) for method in methods)
        columns[column] = [np.nan if cell is None else cell.value for cell in cells]
    return pd.DataFrame(columns, index=list(methods))


def row_methods(number: int, selections: Iterable[Selection], others: bool) -> list[str]:
    """The paper's rows, then the plain network, then (if asked) every other method that was run."""
    rows = list(TABLES[number].rows)
    present = sorted({method for s in selections for method in s.runs})
    plain = [m for m in ("bn", "gap") if m in present and m not in rows]
    rest = [m for m in present if m not in rows and m not in plain] if others else []
    return rows + plain + rest


def available(study: Study, task: str, methods: Iterable[str] | None) -> list[Selection]:
    """A selection for each data set of a task that has any of the methods.

    Raises:
        MissingRuns: no data set has.
    """
    methods = None if methods is None else list(methods)
    names = [study.data] if study.data else study.data_sets(task)
    selections = []
    for name in names:
        try:
            selections.append(study.select(task, methods, name))
        except MissingRuns:
            continue
    if not selections:
        raise study.missing(task, methods or ["svd"])
    return selections


def absent_cells(selection: Selection, methods: Iterable[str]) -> dict[str, str]:
    """What stands in the rows that have no number."""
    return {
        method: "diverged" if selection.diverged.get(method) else NOT_RUN
        for method in methods
        if not selection.runs.get(method)
    }


def assemble(
    number: int,
    methods: Iterable[str],
    ours: Mapping[str, pd.DataFrame],
    cells: Mapping[str, Mapping[str, str]],
    selections: Iterable[Selection],
    remark: str,
) -> pd.DataFrame:
    """The paper's columns, then each of our groups, with labels and notes.

    Args:
        number: of the paper's table.
        methods: the rows.
        ours: group -> statistics by method; an empty one is a data set that was not run.
        cells: group -> method -> what stands where there is no number.
        selections: the runs.
        remark: how the numbers were made.
    """
    methods = list(methods)
    parts = [paper_columns(number, methods)]
    for group, part in ours.items():
        part = part.reindex(methods)
        parts.append(pd.concat({group: part}, axis=1))
    frame = pd.concat(parts, axis=1)
    frame.index.name = "method"
    frame.columns.names = ["source", "statistic"]
    attach(frame, *selections, remark=remark)
    frame.attrs["title"] = f"Table {number}. {TABLES[number].caption}"
    labels = TABLES[number].labels
    frame.attrs["labels"] = {m: labels.get(m) or label(m) for m in methods}
    lost = {m: LOST if m in labels else "" for m in methods}
    papers = dict.fromkeys(parts[0].columns.get_level_values(0), lost)
    frame.attrs["cells"] = papers | {group: dict(texts) for group, texts in cells.items()}
    return frame


def only(frame: pd.DataFrame, methods: Iterable[str]) -> pd.DataFrame:
    """The rows of some methods, a method with another stem among them.

    Args:
        frame: from a table module's ``build``.
        methods: in any spelling that ``Method.parse`` reads.

    Raises:
        UserError: no such method, or no row of it.
    """
    wanted = [str(Method.parse(method)) for method in methods]
    own = pd.Index([str(name).partition(" ")[0] for name in frame.index])
    for method in wanted:
        if method not in own:
            raise unknown("row", method, own.unique())
    return frame[own.isin(wanted)]


def not_run_remark(paper: str) -> str:
    """How to run what the paper ran."""
    command = f"orthocond train --preset {PAPER_PRESETS[paper]}"
    return f"{paper} is {NOT_RUN}; the paper's settings: {command}"
