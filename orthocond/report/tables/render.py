"""Tables as Markdown, CSV, LaTeX or HTML, with the best number of each column marked."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from orthocond.artifacts.csv_tables import DIGITS
from orthocond.errors import unknown
from orthocond.report.paper import PUBLISHED
from orthocond.report.tables.cells import EFFECTS, cell_text
from orthocond.report.tables.comparison import NOT_RUN, UNREAD
from orthocond.report.tables.table import Table

LOWER_IS_BETTER = {"error": True, "error min": True, "top-1": False, "top-5": False}
"""Whether low numbers are better, by shown column. Other columns have no best number."""

HEADINGS = {
    "error": "error (%)",
    "error min": "min",
    "Failure Times": "failures",
    "Top-1 Acc. (%)": "top-1",
    "Top-5 Acc. (%)": "top-5",
    "gap": "gap (points)",
    "difference": "difference [95% interval]",
    "kappa": "κ",
    "kappa_support": "κ on the support",
    "kappa_eps": "κ with ε",
}
"""Headings of statistics; other statistics have their own name as heading."""

SPREADS = {"mean": ("std", "low", "high"), "median": ("q1", "q3")}
"""Statistics of the spread, shown in the same cell as the mean or the median."""

FIRST = (*EFFECTS.values(), "error", "difference", "top-1", "Top-1 Acc. (%)", "FP (ms)", "images")
"""The columns that say, once per group, why a number is missing."""


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the columns as pairs of group and statistic."""
    groups, names = (frame.columns.get_level_values(level) for level in (0, 1))
    return list(zip(groups.astype(str), names.astype(str), strict=True))


def _flat(frame: pd.DataFrame) -> pd.Index[str]:
    """Return one name per column, with its group in front."""
    return pd.Index([f"{group}: {name}" if group else name for group, name in _keys(frame)])


def _middle(name: str) -> str:
    """Return the statistic whose spread a column is: ``error mean`` of ``error std``."""
    stem, _, kind = name.rpartition(" ")
    return next((f"{stem} {middle}" for middle in SPREADS if kind in SPREADS[middle]), name)


def _shown_columns(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return (group, statistic, its numbers) of each shown column.

    The numbers of a mean include its deviation, those of a median its quartiles.
    """
    columns = []
    for group, name in _keys(frame):
        stem, _, kind = name.rpartition(" ")
        if kind in SPREADS:
            parts = [name, *(f"{stem} {spread}" for spread in SPREADS[kind])]
            own = [part for part in parts if (group, part) in frame]
            columns.append((group, stem, frame[[(group, part) for part in own]]))
        elif _middle(name) == name:
            columns.append((group, name, frame[[(group, name)]]))
    return columns


def _best_is(group: str, name: str) -> bool | None:
    """Tell whether the lowest number of a shown column is best; None where none is marked."""
    return LOWER_IS_BETTER.get(HEADINGS.get(name, name) if group == "paper" else name)


def _not_run(table: Table) -> list[tuple[str, str]]:
    """Return the (group, statistic) of each shown column that was run for no row.

    All columns of a table may be such: then none is returned.
    """
    columns = _shown_columns(table.frame)
    unread = {
        group: {table.cells.get(group, {}).get(row) for row in table.frame.index} == {NOT_RUN}
        for group, _, _ in columns
    }
    empty = [
        (group, name)
        for group, name, numbers in columns
        if unread[group] and (group or name in FIRST) and numbers.iloc[:, 0].isna().all()
    ]
    return empty if len(empty) < len(columns) else []


def shown(table: Table, mark: Callable[[str], str], plus_minus: str = "±") -> pd.DataFrame:
    """Return the cells as texts: mean ± std in one cell, the best of a column marked.

    Columns that were run for no row are left out: a note names them.

    Args:
        table: the table.
        mark: marks the text of the best cell.
        plus_minus: the sign ± as the target format spells it.
    """
    frame, absent = table.frame, _not_run(table)
    columns: dict[tuple[str, str], list[str]] = {}
    for group, name, numbers in _shown_columns(frame):
        if (group, name) in absent:
            continue
        values = numbers.iloc[:, 0]
        lower = _best_is(group, name)
        best = None if lower is None else values.min() if lower else values.max()
        texts = []
        for method, row in zip(frame.index, numbers.to_numpy(dtype=float), strict=True):
            if np.isnan(row[0]):
                text = table.cells.get(group, {}).get(method, "")
                # A group says once that a method was not run.
                texts.append(text if text == UNREAD or name in FIRST else "")
            else:
                text = cell_text(row.tolist(), name, plus_minus)
                texts.append(mark(text) if row[0] == best else text)
        columns[(group, HEADINGS.get(name, name))] = texts
    labels = [table.labels[method] for method in frame.index]
    return pd.DataFrame(columns, index=pd.Index(labels, name=str(frame.index.name).capitalize()))


def _notes(table: Table, said: Iterable[str]) -> list[str]:
    """Return sentences below the table: those on its provenance, and what its marks mean."""
    notes = list(said)
    if any(_best_is(group, name) is not None for group, name, _ in _shown_columns(table.frame)):
        notes.append("The best error or accuracy of a column is marked")
    absent = [group.removeprefix("here: ") or name for group, name in _not_run(table)]
    if absent:
        notes.append(f"{NOT_RUN.capitalize()}: {'; '.join(dict.fromkeys(absent))}")
    return [f"{note.rstrip('.')}." for note in notes]


def _all_notes(table: Table) -> list[str]:
    return _notes(table, [table.provenance.note, *table.provenance.remarks])


def _footnotes(texts: pd.DataFrame, link: Callable[[str, str], str]) -> list[str]:
    """Return the footnote of cells that our source of the paper lacks, if there are such cells.

    Args:
        texts: cells of the table, from ``shown``.
        link: returns a link, from its text and its address.
    """
    if not (texts == UNREAD).any(axis=None):
        return []
    paper = link("the published paper", PUBLISHED)
    return [f"{UNREAD} Our source of the paper's text lacks this cell; see {paper}."]


def to_markdown(table: Table) -> str:
    """Return a pipe table with its title above and its notes below."""
    texts = shown(table, lambda text: f"**{text}**")
    notes = _all_notes(table) + _footnotes(texts, lambda text, address: f"[{text}]({address})")
    texts.columns = _flat(texts)
    texts.index = texts.index.map(lambda label: label.replace("|", r"\|"))  # ends no cell
    rows = texts.to_markdown(tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([f"**{table.title}**", rows, *notes]) + "\n"


def to_csv(table: Table) -> str:
    """Return the numbers, rounded as in the CSV files of runs, below one header line."""
    flat = table.frame.copy()
    for group, name in _keys(table.frame):
        if group in table.cells and flat[group, name].isna().all():
            # The spread of a known mean is missing for another reason: there is one seed.
            absent = flat.index[table.frame[group, _middle(name)].isna()]
            texts = {m: table.cells[group].get(m, UNREAD) for m in absent}
            flat[group, name] = pd.Series({m: text for m, text in texts.items() if text != UNREAD})
    flat.columns = _flat(flat)
    flat.insert(0, "label", [table.labels[m] for m in flat.index])
    return flat.to_csv(float_format=f"%.{DIGITS}g", lineterminator="\n")


LATEX = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"${character}$" for character in "<>|"},
        "±": r"$\pm$",
        "×": r"$\times$",
        "κ": r"$\kappa$",
        "ε": r"$\varepsilon$",
        UNREAD: r"\dag{}",
    }
)
"""Characters that pdflatex does not print as they are."""


def _latex_escape(text: str) -> str:
    return text.translate(LATEX)


def to_latex(table: Table) -> str:
    """Return a table environment for a document that loads booktabs and multirow."""
    texts = shown(table, lambda text: rf"\textbf{{{text}}}", r"$\pm$")
    notes = _all_notes(table) + _footnotes(texts, lambda text, address: f"{text}: {address}")
    texts.index = texts.index.map(_latex_escape)
    texts.columns = texts.columns.map(lambda pair: tuple(_latex_escape(part) for part in pair))
    if not any(texts.columns.get_level_values(0)):
        texts.columns = texts.columns.get_level_values(1)  # no line of groups without a name
    caption = _latex_escape(" ".join([f"{table.title}.", *notes]))
    texts = texts.replace(UNREAD, _latex_escape(UNREAD))
    return texts.to_latex(escape=False, caption=caption, multicolumn_format="c", index_names=False)


def to_html(table: Table) -> str:
    """Return a table element with a caption in a scrollable box, and its notes below the box.

    Studies, seeds, commits and regimes are folded away.
    """
    texts = shown(table, lambda text: f"<b>{text}</b>")
    notes = [html.escape(note) for note in _notes(table, table.provenance.shown)]
    notes += _footnotes(texts, lambda text, address: f'<a href="{address}">{text}</a>')
    texts.index = texts.index.map(html.escape)
    texts.columns = texts.columns.map(lambda pair: tuple(html.escape(part) for part in pair))
    element = texts.to_html(escape=False, border=0, classes="orthocond", index_names=False)
    caption = f"<caption>{html.escape(table.title)}</caption>"
    element = re.sub(r"(<table[^>]*>)", lambda match: match[1] + caption, element, count=1)
    below = f'<p class="notes">{" ".join(notes)}</p>\n{table.provenance.folded}\n'
    return f'<div>\n<div style="overflow-x: auto">\n{element}\n</div>\n{below}</div>\n'


TABLE_FORMATS = {"md": to_markdown, "csv": to_csv, "latex": to_latex, "html": to_html}
SUFFIXES = {"md": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}


def render(table: Table, format: str = "md") -> str:
    """Return the text of a table in one of ``TABLE_FORMATS``.

    Raises:
        UserError: unknown format.
    """
    if format not in TABLE_FORMATS:
        raise unknown("format", format, TABLE_FORMATS)
    return TABLE_FORMATS[format](table)


def to_records(table: Table) -> dict[str, Any]:
    """Return a table for programs: title, provenance, and one record per row.

    A missing number is None.
    """
    flat = table.frame.set_axis(_flat(table.frame), axis=1).astype(object)
    flat = flat.where(flat.notna(), None)
    flat.insert(0, "label", pd.Series(dict(table.labels)))
    source = table.provenance
    return {
        "title": table.title,
        "note": source.note,
        "remarks": source.remarks,
        "commands": source.commands,
        "runs": [asdict(run) for run in source.runs],
        "rows": flat.reset_index().to_dict("records"),
    }
