"""The explorer: a page on which a reader chooses curves, and sees the runs behind them as a table.

The page is an HTML form, a chart and a table. ``explorer.js`` hands what the form says to the chart
and the table. The chart is a specification in Vega-Lite, which Vega draws; the extension
``offline`` brings its script. Lines are named by the checkboxes, which are the legend: a keyboard
and a screen reader reach them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from explorer_chart import (
    NAMES,
    Part,
    chart,
    chart_data,
    colour_rules,
    dashes_of,
    methods_of,
    parts,
    seeds_of,
)
from IPython.display import HTML
from kit import all_studies, elements

from orthocond.artifacts.csv_tables import to_csv
from orthocond.report.training_records import Curves

SCRIPT = Path(__file__).with_suffix(".js").read_text()
CHECKED = {"SVD", "SVD + OW", "SVD + NOG", "SVD + OLR", "SVD + NOG + OW + OLR"}
"""Methods that are shown at first."""

FINAL = (
    *("train_loss", "train_top1", "eval_loss", "eval_top1", "recalibrated_top1"),
    *("kappa_support", "rank"),
)
"""Quantities whose last records are columns of the table."""


def _attribute(names: Iterable[str]) -> str:
    """Return the names of studies as the value of an attribute: JSON."""
    return escape(json.dumps(list(names)))


def _options(values: Mapping[str, str]) -> str:
    return "".join(
        f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in values.items()
    )


def _boxes(name: str, boxes: Iterable[tuple[str, str, Iterable[str], bool]]) -> str:
    """Return checkboxes from values, texts in HTML, the studies that have them, and their state."""
    return "".join(
        f'<label data-studies="{_attribute(studies)}"><input type="checkbox" name="{name}" '
        f'value="{escape(value)}"{" checked" * checked}> {text}</label>'
        for value, text, studies, checked in boxes
    )


def _swatch(place: int, curves: Curves) -> str:
    dashes = " ".join(f"{length:g}" for length in dashes_of(curves))
    return (
        '<svg width="30" height="8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" '
        f'stroke="var(--method-{place})" stroke-width="2.5" stroke-dasharray="{dashes}"/></svg>'
    )


def form(studies: list[Part]) -> str:
    """Return the form in HTML: study, quantity, lines, methods, seeds and words of the table."""
    methods = methods_of(studies)
    checked = CHECKED & set(methods) or set(methods)
    legend = (
        (
            name, f"{_swatch(place, curves)} {escape(name)}",
            [p.name for p in studies if name in methods_of([p])], name in checked,
        )
        for place, (name, curves) in enumerate(methods.items())
    )  # fmt: skip
    seeds = (
        (str(seed), str(seed), [p.name for p in studies if seed in seeds_of([p])], True)
        for seed in seeds_of(studies)
    )
    return (
        '<form autocomplete="off">'
        f"<label>Study <select name=study>{_options({p.name: p.name for p in studies})}</select>"
        f"</label> <label>Quantity <select name=quantity>{_options(NAMES)}</select></label> "
        "<label>Lines <select name=lines><option value=median>median and range of the seeds"
        "</option><option value=seeds>each seed</option></select></label>"
        f"<fieldset><legend>Methods</legend>{_boxes('method', legend)}"
        "<span><button type=button data-all>all</button> "
        "<button type=button data-none>none</button></span></fieldset>"
        f"<fieldset><legend>Seeds</legend>{_boxes('seed', seeds)}</fieldset>"
        '<div class="chart"></div>'
        "<p class=empty hidden>Nothing to draw: these runs did not record this quantity (older "
        "runs lack some), or no method or seed is chosen.</p>"
        "<label>Runs whose row contains <input type=search name=words></label> "
        "<output></output></form>"
    )


def rows(data: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per record of ``chart_data``: the run, and the last value of ``FINAL``."""
    return [
        {key: run[key] for key in ("study", "method", "seed")}
        | {q: run["curves"][q][1][-1] if q in run["curves"] else None for q in FINAL}
        for run in data
    ]


def _cell(value: float | None) -> str:
    if value is None:
        return "<td>–</td>"
    return f'<td data-value="{value}">{f"{value:.3g}" if abs(value) >= 1e5 else value}</td>'


def table(data: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of runs in HTML. A button in each header sorts by its column."""
    titles = ("method", "seed", *(NAMES[column] for column in FINAL))
    head = "".join(f'<th scope="col"><button type="button">{t}</button></th>' for t in titles)
    body = "".join(
        f'<tr data-study="{escape(row["study"])}"><th scope="row">{escape(row["method"])}</th>'
        f"{_cell(row['seed'])}{''.join(_cell(row[column]) for column in FINAL)}</tr>"
        for row in rows(data)
    )
    return (
        '<div class="wide" tabindex="0"><table class="orthocond" aria-label="Chosen runs">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _notes(studies: Iterable[Part]) -> str:
    """Return the provenance of each study, folded away."""
    return "".join(
        f'<details data-studies="{_attribute([part.name])}"><summary>Where these runs come from'
        f"</summary><p>{escape('. '.join([part.provenance.note, *part.provenance.remarks]))}.</p>"
        "</details>"
        for part in studies
    )


def show() -> HTML:
    """Show the explorer of all runs, or the command that makes runs if there are none."""

    def element() -> HTML:
        studies = parts(all_studies())
        elements.FILES.mkdir(parents=True, exist_ok=True)
        data, steps = chart_data(studies)
        drawn = json.dumps(chart(studies, data, steps), separators=(",", ":"), allow_nan=False)
        (elements.FILES / "explorer.js").write_text(f"const explorerChart = {drawn};\n")
        columns = ("study", "method", "seed", *FINAL)
        (elements.FILES / "explorer.csv").write_bytes(to_csv(columns, rows(data)))
        return HTML(
            f'<div class="explorer"><style>{colour_rules(methods_of(studies))}</style>'
            f"{form(studies)}{table(data)}{_notes(studies)}"
            '<p>Download the table: <a href="files/explorer.csv" download>CSV</a></p>'
            '<script src="_static/vega.js"></script><script src="files/explorer.js"></script>'
            f'<script type="module">{SCRIPT}</script></div>'
        )

    return elements.from_root("explorer", element)
