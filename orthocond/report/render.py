"""A table written out: Markdown, CSV, LaTeX or HTML, with the best of each column marked."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
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
    "difference": "difference [95% interval]",
    "kappa": "κ",
    "kappa_support": "κ on the support",
    "kappa_eps": "κ with ε",
}
"""What stands above a column, where it is not the statistic's name."""

SPREADS = {"mean": ("std", "low", "high"), "median": ("q1", "q3")}
"""What is shown in one cell with a statistic."""

FIRST = ("error", "difference", "top-1", "Top-1 Acc. (%)", "FP (ms)")
"""The column of a group that says what is not there."""

WHOLE = ("n", "rank", "rounds", "failures", "Failure Times", "unrecovered", "FP (ms)", "BP (ms)")
"""Shown without decimals that they do not have."""

SIGNED = ("difference",)
"""Shown with a plus where it is one."""

P_VALUE = "p (Holm)"
"""Shown with two digits."""

MAGNITUDES = ("kappa", "kappa_support", "kappa_eps")
"""Shown with two digits and a power of ten."""


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The columns, as pairs of group and statistic."""
    groups, names = (frame.columns.get_level_values(level) for level in (0, 1))
    return list(zip(groups.astype(str), names.astype(str), strict=True))


def _flat(frame: pd.DataFrame) -> pd.Index[str]:
    """The columns in one line each."""
    return pd.Index([f"{group}: {name}" if group else name for group, name in _keys(frame)])


def _shown_columns(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(group, statistic, its numbers): a mean has its deviation in it, a median its quartiles."""
    columns = []
    for group, name in _keys(frame):
        stem, _, kind = name.rpartition(" ")
        if kind in SPREADS:
            parts = [name, *(f"{stem} {spread}" for spread in SPREADS[kind])]
            own = [part for part in parts if (group, part) in frame]
            columns.append((group, stem, frame[[(group, part) for part in own]]))
        elif kind not in [spread for spreads in SPREADS.values() for spread in spreads]:
            columns.append((group, name, frame[[(group, name)]]))
    return columns


def _best_is(group: str, name: str) -> bool | None:
    """Whether the lowest of a shown column is the best; None where none is."""
    return LOWER_IS_BETTER.get(HEADINGS.get(name, name) if group == "paper" else name)


def _cell(numbers: Sequence[float], name: str, plus_minus: str) -> str:
    value, *spread = numbers
    if name in MAGNITUDES:
        return f"{value:.1e}"
    if name == P_VALUE:
        return f"{value:.2g}"
    sign = "+z" if name in SIGNED else ""
    text = f"{value:g}" if name in WHOLE and not spread else f"{value:{sign}.2f}"
    if not spread or np.isnan(spread).any():
        return text
    if len(spread) == 1:
        return f"{text} {plus_minus} {spread[0]:.2f}"
    return f"{text} [{spread[0]:{sign}.2f}, {spread[1]:{sign}.2f}]"


def shown(frame: pd.DataFrame, mark: Callable[[str], str], plus_minus: str = "±") -> pd.DataFrame:
    """The table as texts: mean ± std in one cell, the best of a column marked.

    Args:
        frame: from a table module's ``build``.
        mark: what is done to the best cell's text.
        plus_minus: the sign in the target's spelling.
    """
    columns: dict[tuple[str, str], list[str]] = {}
    for group, name, numbers in _shown_columns(frame):
        values = numbers.iloc[:, 0]
        lower = _best_is(group, name)
        best = None if lower is None else values.min() if lower else values.max()
        texts = []
        for method, cell in zip(frame.index, numbers.to_numpy(dtype=float), strict=True):
            if np.isnan(cell[0]):
                text = frame.attrs["cells"].get(group, {}).get(method, "")
                # What was not run is said once a group.
                texts.append(text if text == LOST or name in FIRST else "")
            else:
                text = _cell(cell.tolist(), name, plus_minus)
                texts.append(mark(text) if cell[0] == best else text)
        columns[(group, HEADINGS.get(name, name))] = texts
    labels = [frame.attrs["labels"][method] for method in frame.index]
    return pd.DataFrame(columns, index=pd.Index(labels, name="Method"))


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = [frame.attrs["note"], *frame.attrs["remarks"]]
    if any(_best_is(group, name) is not None for group, name, _ in _shown_columns(frame)):
        notes.append("The best error or accuracy of a column is marked")
    if any(LOST in cells.values() for cells in frame.attrs["cells"].values()):
        notes.append(f"{LOST}: our source of the paper's text does not have this cell")
    return [f"{note.rstrip('.')}." for note in notes]


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
        if group in frame.attrs["cells"] and frame[(group, name)].isna().all():
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
    """A table element with a caption, in a scrollable box, and its notes under that."""
    texts = shown(frame, lambda text: f"<b>{text}</b>")
    texts.index = texts.index.map(html.escape)
    texts.columns = texts.columns.map(lambda pair: tuple(html.escape(part) for part in pair))
    table = texts.to_html(escape=False, border=0, classes="orthocond", index_names=False)
    caption = f"<caption>{html.escape(frame.attrs['title'])}</caption>"
    table = re.sub(r"(<table[^>]*>)", lambda match: match[1] + caption, table, count=1)
    notes = "".join(f"<p><small>{html.escape(note)}</small></p>\n" for note in _notes(frame))
    return f'<div>\n<div style="overflow-x: auto">\n{table}\n</div>\n{notes}</div>\n'


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
