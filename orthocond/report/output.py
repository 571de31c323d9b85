"""Figures and tables as files that name their runs; equal input gives equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from orthocond.artifacts.atomic_files import make_folder, write_bytes
from orthocond.report.commands import MissingRuns
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.provenance import Numbers
from orthocond.report.study import Study
from orthocond.report.style import theme
from orthocond.report.tables.render import SUFFIXES, render
from orthocond.report.tables.table import Table

T = TypeVar("T")
FIGURE_FORMATS = ("png", "svg", "pdf")
DPI = 300


def _metadata(format: str, title: str, text: str) -> dict[str, Any]:
    """Return title and provenance under the names that a format defines, without a date."""
    if format == "pdf":
        return {"Title": title, "Subject": text, "CreationDate": None, "ModDate": None}
    if format == "svg":
        return {"Title": title, "Description": text, "Date": None}
    return {"Title": title, "Description": text, "Software": None}


def save_figure(
    figure: Figure, out: Path, data: Numbers | None, formats: Iterable[str] = FIGURE_FORMATS
) -> list[Path]:
    """Write a drawn figure in each format, and its numbers as CSV.

    Args:
        figure: the drawing.
        out: path without a suffix: ``book/fig2`` becomes ``book/fig2.png`` and so on.
        data: the numbers drawn; their provenance goes into the metadata of each file. None writes
            no CSV and no provenance.
        formats: png, svg, pdf.

    Returns:
        The paths of the files written, the CSV last.

    Raises:
        UserError: the folder cannot be written.
    """
    make_folder(out.parent)
    text = "" if data is None else data.provenance.text()
    paths = []
    for format in formats:
        buffer = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": "orthocond", "pdf.fonttype": 42}):
            figure.savefig(
                buffer, format=format, dpi=DPI, metadata=_metadata(format, out.name, text)
            )
        paths.append(out.with_name(f"{out.name}.{format}"))
        write_bytes(paths[-1], buffer.getvalue())
    if data is not None:
        paths.append(out.with_name(f"{out.name}.csv"))
        write_bytes(paths[-1], data.frame.to_csv(index=False, float_format="%.6g").encode())
    return paths


def write_figure(
    study: Study, figure: StudyFigure, out: Path, formats: Iterable[str] = FIGURE_FORMATS
) -> dict[str, Any]:
    """Draw one figure for light and for dark pages, and write its files.

    Args:
        study: the runs.
        figure: one of ``FIGURES``, or another figure.
        out: the folder.
        formats: formats of the light figure. The dark one is made for web pages, so it has no pdf.

    Returns:
        ``name``, ``files``, ``caption`` (with what to see in the drawing), ``alt`` (the drawing
        described in words), ``note``, ``remarks``, ``commands``.

    Raises:
        MissingRuns: the study lacks the runs; the message has the command that makes them.
    """
    formats, data = list(formats), figure.data(study)
    files = []
    for dark in (False, True):
        with theme(dark):
            drawing = figure.draw(data)
            if dark:
                pages = [f for f in formats if f != "pdf"]
                files += save_figure(drawing, out / f"{figure.name}-dark", None, pages)
            else:
                files += save_figure(drawing, out / figure.name, data, formats)
            plt.close(drawing)
    return {
        "name": figure.name,
        "files": [str(f) for f in files],
        "caption": f"{figure.caption} {figure.finding(data)}".strip(),
        "alt": figure.alt(data),
        "note": data.provenance.note,
        "remarks": data.provenance.remarks,
        "commands": data.provenance.commands,
    }


def make_all(
    names: Iterable[str],
    make: Callable[[str], T],
    strict: bool,
    optional: Collection[str] = (),
) -> tuple[dict[str, T], dict[str, str]]:
    """Make several figures or tables from runs.

    Args:
        names: their names.
        make: makes the one with a name; raises ``MissingRuns`` where the study lacks its runs.
        strict: True raises an error for the first without runs; False skips it.
        optional: names that are skipped even if ``strict`` is True.

    Returns:
        The results by name, and for each skipped name the reason.

    Raises:
        MissingRuns: one has no runs and ``strict`` is True, or none has runs.
    """
    done: dict[str, T] = {}
    missing: dict[str, MissingRuns] = {}
    for name in names:
        try:
            done[name] = make(name)
        except MissingRuns as error:
            if strict and name not in optional:
                raise
            missing[name] = error
    if missing and not done:
        raise next(iter(missing.values()))
    return done, {name: str(error) for name, error in missing.items()}


def write_table(table: Table, name: str, out: Path | None, format: str = "md") -> str:
    """Write a table into the folder ``out`` and return the file's path; without it, the text.

    Raises:
        UserError: the format is unknown, or the folder cannot be written.
    """
    text = render(table, format)
    if out is None:
        return text
    make_folder(out)
    path = out / f"{name}{SUFFIXES[format]}"
    write_bytes(path, text.encode())
    return str(path)
