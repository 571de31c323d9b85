"""The parts that tables 1 to 6 share: the paper's numbers beside those of a study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.config.methods import Method
from orthocond.errors import unknown
from orthocond.report.commands import MissingRuns
from orthocond.report.paper import PAPER_TABLES, published
from orthocond.report.provenance import Provenance
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.style import label, short_label
from orthocond.report.tables.cells import EFFECTS
from orthocond.report.tables.table import Table

NOT_RUN = "not run here"
UNREAD = "†"  # mark of a cell of the paper that our source text lacks
PAPER_PRESETS = {
    "CIFAR10": "paper-dbn-cifar10",
    "CIFAR100": "paper-dbn-cifar100",
    "ImageNet": "paper-gcp-imagenet",
}
"""Presets with the paper's settings, by data set of the paper."""

Column = tuple[str, str]


def is_data_set(name: str, paper: str) -> bool:
    """Tell whether a data set is one of the paper, or a copy of it such as ``cifar10-jpeg``.

    Example:
        >>> is_data_set("cifar10-jpeg", "CIFAR10"), is_data_set("cifar100", "CIFAR10")
        (True, False)
    """
    return re.fullmatch(rf"{paper}(-.*)?", name, re.IGNORECASE) is not None


def mean_and_spread(values: Iterable[float | None], name: str) -> dict[str, float]:
    """Return mean and sample standard deviation; None and NaN are left out."""
    known = np.array([v for v in values if v is not None], dtype=float)
    known = known[~np.isnan(known)]
    return {
        f"{name} mean": known.mean() if len(known) else np.nan,
        f"{name} std": known.std(ddof=1) if len(known) > 1 else np.nan,
    }


def summaries(runs: Iterable[Run], key: str) -> list[float | None]:
    """Return one number of each run's summary."""
    return [run.summary[key] for run in runs]


def paper_columns(number: int, methods: Iterable[str]) -> pd.DataFrame:
    """Return the published numbers of a table.

    A cell that our source of the paper's text lacks is NaN. A heading such as 'CIFAR100 mean'
    becomes the column ('paper: CIFAR100', 'error mean').
    """
    columns: dict[Column, list[float]] = {}
    for heading in PAPER_TABLES[number].columns:
        data, _, statistic = heading.rpartition(" ")
        error = statistic in ("mean", "std", "min")
        column = (f"paper: {data}", f"error {statistic}") if error else ("paper", heading)
        cells = (published(number, method, heading) for method in methods)
        columns[column] = [np.nan if cell is None else cell for cell in cells]
    return pd.DataFrame(columns, index=list(methods))


def row_methods(number: int, selections: Iterable[Selection], others: bool) -> list[str]:
    """Return a table's methods: the paper's rows, the plain network if it was run, then others.

    Args:
        number: of the paper's table.
        selections: the runs.
        others: append every other method that was run.
    """
    rows = list(PAPER_TABLES[number].rows)
    present = sorted({method for s in selections for method in s.runs})
    plain = [m for m in ("bn", "gap") if m in present and m not in rows]
    rest = [m for m in present if m not in rows and m not in plain] if others else []
    return rows + plain + rest


def available(study: Study, task: str, methods: Iterable[str] | None) -> list[Selection]:
    """Return one selection for each data set on which any of the methods was run.

    Raises:
        MissingRuns: there is no such data set.
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
        raise study.missing(task, methods or (), study.data)
    return selections


def absent_cells(selection: Selection, methods: Iterable[str]) -> dict[str, str]:
    """Return the texts of the rows without a number: ``diverged`` or ``not run here``."""
    return {
        method: "diverged" if selection.diverged.get(method) else NOT_RUN
        for method in methods
        if not selection.runs.get(method)
    }


def _full_name(short: str, name: str) -> str:
    """Return a note on a row that has a longer name in the paper.

    Example:
        >>> _full_name("SN", "SVD + Spectral Norm (SN)")
        'SN is Spectral Norm'
    """
    return f"{short} is {name.removeprefix('SVD + ').removesuffix(f' ({short})')}"


def assemble(
    number: int,
    methods: Iterable[str],
    ours: Mapping[str, pd.DataFrame],
    cells: Mapping[str, Mapping[str, str]],
    provenance: Provenance,
) -> Table:
    """Put the paper's columns and those of a study side by side.

    Args:
        number: of the paper's table.
        methods: the rows.
        ours: group -> statistics by method; an empty frame is a data set that was not run.
        cells: group -> method -> the text in place of a missing number.
        provenance: where the study's numbers come from.
    """
    methods = list(methods)
    parts = [paper_columns(number, methods)]
    for group, part in ours.items():
        part = part.reindex(methods)
        parts.append(pd.concat({group: part}, axis=1))
    frame = pd.concat(parts, axis=1)
    frame.index.name = "method"
    frame.columns.names = ["source", "statistic"]
    source = PAPER_TABLES[number]
    unread = {m: UNREAD if m in source.rows else "" for m in methods}
    names = [_full_name(short_label(m), name) for m, name in source.names.items()]
    said = [f"Names in the paper: {', '.join(names)}"] if names else []
    papers = dict.fromkeys(parts[0].columns.get_level_values(0), unread)
    return Table(
        title=f"Table {number}. {source.caption}",
        frame=frame,
        labels={m: label(m) for m in methods},
        cells={**papers, **cells},
        provenance=replace(provenance, remarks=(*provenance.remarks, *said)),
    )


def only(table: Table, methods: Iterable[str] | None) -> Table:
    """Return a table with the rows of some methods, including those with a wider stem.

    A table with one row per study keeps the columns of the methods instead.

    Args:
        table: the table.
        methods: in any spelling that ``Method.parse`` reads; None keeps the whole table.

    Raises:
        UserError: a method is unknown.
        MissingRuns: a method has no row, or no column in a table with one row per study.
    """
    if methods is None:
        return table
    wanted = [str(Method.parse(method)) for method in methods]
    if table.frame.index.name != "method":
        return _only_columns(table, wanted)
    own = pd.Index([str(name).partition(" ")[0] for name in table.frame.index])
    for method in wanted:
        if method not in own:
            raise MissingRuns(str(unknown("row", method, own.unique())))
    return replace(table, frame=table.frame[own.isin(wanted)])


def _only_columns(table: Table, wanted: Sequence[str]) -> Table:
    """Return a table with the effects of some treatments, and the columns of no treatment."""
    headings = table.frame.columns.get_level_values(1)
    of_method = {
        method: [h for h in headings if h.rpartition(" ")[0] == heading]
        for method, heading in EFFECTS.items()
    }
    allowed = [method for method, columns in of_method.items() if columns]
    if not allowed:
        raise MissingRuns(
            f"the table {table.title!r} has one row per study and none per method: "
            "leave out --method"
        )
    for method in wanted:
        if method not in allowed:
            raise MissingRuns(str(unknown("column", method, allowed)))
    others = {h for method in allowed if method not in wanted for h in of_method[method]}
    return replace(table, frame=table.frame.loc[:, [h not in others for h in headings]])


def not_run_remark(paper: str) -> str:
    """Return a remark with the command that repeats the paper's experiment on a data set."""
    return f"{paper} with the paper's settings: orthocond train --preset {PAPER_PRESETS[paper]}"
