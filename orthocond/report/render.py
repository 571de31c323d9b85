"""A table written out: Markdown, CSV, LaTeX or HTML, with the best of each column marked."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from orthocond.errors import unknown
from orthocond.report.tables import LOST

LOWER_IS_BETTER = {"error": True, "error min": True, "top-1": False, "top-5": False}
"""Which way a shown column is better; columns that are not here have no best."""

HEADINGS = {
    "error": "error (%)",
    "error min": "min",
    "Failure Times": "failures",
    "Top-1 Acc. (%)": "top-1",
    "Top-5 Acc. (%)": "top-5",
}
"""What stands above a column, where it is not the statistic's name."""

FIRST = ("error", "top-1", "Top-1 Acc. (%)", "FP (ms)")
"""The column of a group that says what is not there."""

WHOLE = ("n", "failures", "Failure Times", "unrecovered")  # shown without needless decimals


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The columns, as pairs of group and statistic."""
    groups, names = (frame.columns.get_level_values(level) for level in (0, 1))
    return list(zip(groups.astype(str), names.astype(str), strict=True))


def _flat(frame: pd.DataFrame) -> pd.Index[str]:
    """The columns in one line each."""
    return pd.Index([f"{group}: {name}" for group, name in _keys(frame)])


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str, Any, Any]]:
    """(group, statistic, values, their deviations or None), a mean and its deviation in one."""
    columns = []
    for group, name in _keys(frame):
        if name.endswith(" std"):
            continue
        spread = name.removesuffix(" mean") + " std"
        deviations = frame.get((group, spread)) if name.endswith(" mean") else None
        columns.append((group, name.removesuffix(" mean"), frame[(group, name)], deviations))
    return columns


def _number(value: float, name: str) -> str:
    return f"{value:g}" if name in WHOLE else f"{value:.2f}"


def shown(frame: pd.DataFrame, mark: Callable[[str], str], plus_minus: str = "±") -> pd.DataFrame:
    """The table as texts: mean ± std in one cell, the best of a column marked.

    Args:
        frame: from a table module's ``build``.
        mark: what is done to the best cell's text.
        plus_minus: the sign in the target's spelling.
    """
    columns: dict[tuple[str, str], list[str]] = {}
    for group, name, values, spreads in _pairs(frame):
        absent = frame.attrs["cells"].get(group, {})
        lower = LOWER_IS_BETTER.get(HEADINGS.get(name, name) if group == "paper" else name)
        best = None if lower is None else values.min() if lower else values.max()
        texts = []
        for place, method in enumerate(frame.index):
            value = values.iloc[place]
            text = absent.get(method, "") if np.isnan(value) else _number(value, name)
            if np.isnan(value) and text != LOST and name not in FIRST:
                text = ""  # what is not there is said once a group
            if spreads is not None and not np.isnan(spreads.iloc[place]):
                text += f" {plus_minus} {spreads.iloc[place]:.2f}"
            texts.append(mark(text) if best is not None and value == best else text)
        columns[(group, HEADINGS.get(name, name))] = texts
    labels = [frame.attrs["labels"][method] for method in frame.index]
    return pd.DataFrame(columns, index=pd.Index(labels, name="Method"))


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = [frame.attrs["note"], *frame.attrs["remarks"]]
    legend = (
        f"The best of each column is marked; {LOST}: the source text that we had lost this cell"
    )
    return [f"{note.rstrip('.')}." for note in [*notes, legend]]


def to_markdown(frame: pd.DataFrame) -> str:
    """A pipe table with its title above and its notes below."""
    texts = shown(frame, lambda text: f"**{text}**")
    texts.columns = _flat(texts)
    table = texts.to_markdown(tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([f"**{frame.attrs['title']}**", table, *_notes(frame)]) + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """The numbers as they are, one header line."""
    flat = frame.astype(object)
    for group, name in _keys(frame):
        if frame[(group, name)].isna().all():
            flat[(group, name)] = pd.Series(frame.attrs["cells"][group])
    flat.columns = _flat(frame)
    flat.insert(0, "label", [frame.attrs["labels"][m] for m in frame.index])
    flat = flat.map(lambda cell: f"{cell:.9g}" if isinstance(cell, float) else cell)
    return flat.replace("nan", "").to_csv(lineterminator="\n")


def _latex_escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("±", r"$\pm$")


def to_latex(frame: pd.DataFrame) -> str:
    """A table environment for a document that loads booktabs and multirow."""
    texts = shown(frame, lambda text: rf"\textbf{{{text}}}", r"$\pm$")
    texts.index = texts.index.map(_latex_escape)
    texts.columns = texts.columns.map(lambda pair: tuple(_latex_escape(part) for part in pair))
    caption = _latex_escape(" ".join([f"{frame.attrs['title']}.", *_notes(frame)]))
    return texts.to_latex(escape=False, caption=caption, multicolumn_format="c", index_names=False)


def to_html(frame: pd.DataFrame) -> str:
    """A table element with a caption, in a scrollable box with its notes."""
    texts = shown(frame, lambda text: f"<b>{text}</b>")
    texts.index = texts.index.map(html.escape)
    texts.columns = texts.columns.map(lambda pair: tuple(html.escape(part) for part in pair))
    table = texts.to_html(escape=False, border=0, classes="orthocond", index_names=False)
    caption = f"<caption>{html.escape(frame.attrs['title'])}</caption>"
    table = re.sub(r"(<table[^>]*>)", lambda match: match[1] + caption, table, count=1)
    notes = "".join(f"<p><small>{html.escape(note)}</small></p>\n" for note in _notes(frame))
    return f'<div style="overflow-x: auto">\n{table}\n{notes}</div>\n'


FORMATS = {"md": to_markdown, "csv": to_csv, "latex": to_latex, "html": to_html}
SUFFIXES = {"md": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}


def render(frame: pd.DataFrame, format: str = "md") -> str:
    """The table in one of the formats.

    Raises:
        UserError: unknown format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return FORMATS[format](frame)


def to_records(frame: pd.DataFrame) -> dict[str, Any]:
    """The table for a program: title, note, and a record a row with None where nothing is known."""
    flat = frame.set_axis(_flat(frame), axis=1).astype(object)
    flat = flat.where(flat.notna(), None)
    flat.insert(0, "label", pd.Series(frame.attrs["labels"]))
    rows = flat.reset_index().to_dict("records")
    attrs = {key: frame.attrs[key] for key in ("title", "note", "remarks", "commands", "runs")}
    return {**attrs, "rows": rows}
