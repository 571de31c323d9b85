"""Figures and tables as files: the same input gives the same bytes, and each file says its runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from orthocond.files import make_folder, write_bytes
from orthocond.report import registry
from orthocond.report.provenance import as_text
from orthocond.report.registry import FigureModule
from orthocond.report.render import SUFFIXES, render
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import theme

T = TypeVar("T")
FORMATS = ("png", "svg", "pdf")
DPI = 300


def _metadata(format: str, title: str, text: str) -> dict[str, Any]:
    """Title and provenance under the names that each format has, and no date."""
    if format == "pdf":
        return {"Title": title, "Subject": text, "CreationDate": None, "ModDate": None}
    if format == "svg":
        return {"Title": title, "Description": text, "Date": None}
    return {"Title": title, "Description": text, "Software": None}


def save_figure(
    figure: Figure, out: Path, data: pd.DataFrame | None, formats: Iterable[str] = FORMATS
) -> list[Path]:
    """Write a figure in each format, and what it shows as CSV.

    Args:
        figure: from a figure module's ``draw``.
        out: path without a suffix: ``book/fig2`` becomes ``book/fig2.png`` and so on.
        data: from the module's ``data``; its provenance goes into each file's metadata.
        formats: png, svg, pdf.

    Returns:
        The paths written, the figure's first and the CSV last.

    Raises:
        UserError: the folder can't be written.
    """
    make_folder(out.parent)
    text = "" if data is None else as_text(data)
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
        write_bytes(paths[-1], data.to_csv(index=False, float_format="%.6g").encode())
    return paths


def plot(
    study: Study,
    name: str,
    out: Path,
    formats: Iterable[str] = FORMATS,
    module: FigureModule | None = None,
) -> dict[str, Any]:
    """Draw one figure for light and for dark pages, and write its files.

    Args:
        study: the runs.
        name: a key of ``FIGURES``, or what the files of another module's figure are called.
        out: the folder.
        formats: of the light figure; the dark one, for pages, is png and svg among them.
        module: a figure that is not the paper's.

    Returns:
        ``name``, ``files``, ``alt`` (what it shows, in words), ``note``, ``remarks``, ``commands``.

    Raises:
        MissingRuns: with the command that makes them.
    """
    module, formats = module or registry.FIGURES[name], list(formats)
    data = module.data(study)
    files = []
    for dark in (False, True):
        with theme(dark):
            figure = module.draw(study)
            if dark:
                pages = [f for f in formats if f != "pdf"]
                files += save_figure(figure, out / f"{name}-dark", None, pages)
            else:
                files += save_figure(figure, out / name, data, formats)
            plt.close(figure)
    told = {key: data.attrs[key] for key in ("note", "remarks", "commands")}
    return {"name": name, "files": [str(f) for f in files], "alt": module.alt(study), **told}


def draw_all(
    study: Study, names: Iterable[str], out: Path, formats: Iterable[str], strict: bool = True
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """``plot`` for several figures.

    Args:
        study: the runs.
        names: keys of ``FIGURES``.
        out: the folder.
        formats: of the light figures.
        strict: whether a figure without runs is an error; else it is skipped.

    Returns:
        What ``plot`` returned for each, and the reasons of what was skipped.

    Raises:
        MissingRuns: a figure has no runs and ``strict`` is set, or none has.
    """
    formats = list(formats)
    done, skipped = _each(names, lambda name: plot(study, name, out, formats), strict)
    return list(done.values()), skipped


def build_all(
    study: Study, names: Iterable[str], strict: bool = True
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Several tables by name, and the reasons of what was skipped; see ``draw_all``."""
    return _each(names, lambda name: registry.TABLES[name].build(study), strict)


def _each(
    names: Iterable[str], make: Callable[[str], T], strict: bool
) -> tuple[dict[str, T], dict[str, str]]:
    done: dict[str, T] = {}
    missing: dict[str, MissingRuns] = {}
    for name in names:
        try:
            done[name] = make(name)
        except MissingRuns as error:
            if strict:
                raise
            missing[name] = error
    if missing and not done:
        raise next(iter(missing.values()))
    return done, {name: str(error) for name, error in missing.items()}


def write_table(frame: pd.DataFrame, name: str, out: Path | None, format: str = "md") -> str:
    """Write a table where ``out`` is a folder and return the file's path, else its text."""
    text = render(frame, format)
    if out is None:
        return text
    make_folder(out)
    path = out / f"{name}{SUFFIXES[format]}"
    write_bytes(path, text.encode())
    return str(path)
