"""The chart of the explorer: its studies, its data, and a specification in Vega-Lite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orthocond.artifacts.run_reader import Run
from orthocond.config.tasks import TASKS
from orthocond.report.commands import MissingRuns
from orthocond.report.provenance import Provenance
from orthocond.report.study import Study
from orthocond.report.style import line_style, theme
from orthocond.report.training_records import QUANTITIES, Curves, curves_of, records, selections

POINTS = 20  # of a probed quantity's curve; those of metrics.csv have one point per epoch
DIGITS = 4  # significant digits of a number
DASHES = 1.6  # pixels of the chart in a unit of a dash pattern
LOG = [quantity.column for quantity in QUANTITIES if quantity.log]
NAMES = {quantity.column: quantity.name for quantity in QUANTITIES}


@dataclass(frozen=True)
class Part:
    """A study on the page.

    Args:
        name: name of the study and of its task.
        curves: its methods.
        provenance: of its runs.
    """

    name: str
    curves: tuple[Curves, ...]
    provenance: Provenance


def parts(study: Study) -> list[Part]:
    """Return the studies of all tasks in a folder, the one with most runs first.

    Raises:
        MissingRuns: there are no complete runs.
    """
    found = []
    for task in TASKS.values():
        for name in study.names(task.name):
            try:
                own = selections(study, task.name, name)
            except MissingRuns:  # all runs diverged
                continue
            source = Provenance.of(*own, how="")
            found.append(Part(f"{name} ({task.short_label})", tuple(curves_of(own)), source))
    if not found:
        raise study.missing(study.main_task, ["svd"])
    return sorted(found, key=lambda part: -len(part.provenance.runs))


def _numbers(values: Iterable[float]) -> list[float]:
    """Return rounded values; a whole one is an int, which is shorter in the file."""
    rounded = (float(f"{value:.{DIGITS}g}") for value in values)
    return [int(value) if value.is_integer() and value < 1e6 else value for value in rounded]


def _curves(run: Run, places: dict[tuple[int, ...], int]) -> dict[str, tuple[int, list[float]]]:
    """Return the place of the steps, and the values, of every quantity that was recorded.

    Infinite values are left out. Steps that are not yet in ``places`` are added.
    """
    finite = {q: values[np.isfinite(values)] for q, values in records(run, points=POINTS).items()}
    return {
        q: (places.setdefault(tuple(map(int, values.index)), len(places)), _numbers(values))
        for q, values in finite.items()
        if len(values)
    }


def chart_data(studies: Iterable[Part]) -> tuple[list[dict[str, Any]], list[tuple[int, ...]]]:
    """Return one record per run, and the steps, which many curves share.

    A record has the study, the method, the seed, and for each quantity the place of its steps and
    its values.
    """
    places: dict[tuple[int, ...], int] = {}
    data = [
        {
            "study": part.name,
            "method": curves.name,
            "seed": run.config["seed"],
            "curves": _curves(run, places),
        }
        for part in studies
        for curves in part.curves
        for run in curves.runs
    ]
    return data, list(places)


def methods_of(studies: Iterable[Part]) -> dict[str, Curves]:
    """Return the methods of all studies by name."""
    return {curves.name: curves for part in studies for curves in part.curves}


def dashes_of(curves: Curves) -> list[float]:
    """Return the dash pattern of a method in pixels; controls have the one of the static figure."""
    if curves.control:
        return [4, 2]
    pattern = line_style(curves.method)["linestyle"]
    return [1, 0] if pattern == "-" else [DASHES * length for length in pattern[1]]


def colour_rules(methods: Mapping[str, Curves]) -> str:
    """Return style rules that set the colour of every method, on light and on dark pages."""
    rules = []
    for dark in (False, True):
        with theme(dark):
            colours = [line_style(curves.method)["color"] for curves in methods.values()]
        page = 'html[data-theme="dark"] ' if dark else ""
        named = "; ".join(f"--method-{i}: {colour}" for i, colour in enumerate(colours))
        rules.append(f"{page}.explorer {{ {named} }}")
    return "\n".join(rules)


TRANSFORM = [
    {
        "filter": "datum.study === study && indexof(methods, datum.method) >= 0"
        " && indexof(seeds, datum.seed) >= 0 && datum.curves[quantity]"
    },
    {"calculate": "steps[datum.curves[quantity][0]]", "as": "step"},
    {"calculate": "datum.curves[quantity][1]", "as": "value"},
    {"calculate": "single ? 'seed ' + datum.seed : 'median'", "as": "line"},
    {"flatten": ["step", "value"]},
    {
        "aggregate": [
            {"op": op, "field": "value", "as": name}
            for op, name in (("median", "value"), ("min", "low"), ("max", "high"), ("count", "n"))
        ],
        "groupby": ["method", "line", "step"],
    },
    *(
        {"calculate": f"log ? log(datum.{name}) / LN10 : datum.{name}", "as": f"{name}_drawn"}
        for name in ("value", "low", "high")
    ),
    {"filter": "isFinite(datum.value_drawn)"},
]
"""From one record per run to one per line and step: the median and the range of the seeds."""

TOOLTIP = [
    {"field": "method", "type": "nominal"},
    {"field": "line", "type": "nominal"},
    {"field": "step", "type": "quantitative", "format": ","},
    {"field": "value", "type": "quantitative", "format": ".4~g"},
    {"field": "low", "type": "quantitative", "format": ".4~g", "title": "lowest seed"},
    {"field": "high", "type": "quantitative", "format": ".4~g", "title": "highest seed"},
    {"field": "n", "type": "quantitative", "title": "seeds"},
]


HEIGHT = {
    "field": "value_drawn", "type": "quantitative", "scale": {"zero": False},
    "axis": {
        "title": None, "minExtent": 50,  # room for the longest label: 1e+17
        "labelExpr": "log ? format(pow(10, datum.value), '.2~g') : datum.label",
    },
}  # fmt: skip
NEAR = {
    "name": "near",
    "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
}


def layers(methods: Mapping[str, Curves]) -> list[dict[str, Any]]:
    """Return the ranges of the seeds, the lines, and the point nearest to the pointer."""
    names = list(methods)
    colours = [f"var(--method-{place})" for place in range(len(names))]
    dashes = [dashes_of(curves) for curves in methods.values()]
    line = {
        "color": {
            "field": "method", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": colours},
        },
        "strokeDash": {
            "field": "method", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": dashes},
        },
        "detail": {"field": "line", "type": "nominal"},
    }  # fmt: skip
    return [
        {
            "mark": {"type": "area", "opacity": 0.15},
            "encoding": {
                "color": line["color"], "detail": line["detail"],
                "y": HEIGHT | {"field": "low_drawn"}, "y2": {"field": "high_drawn"},
            },
        },
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "params": [NEAR],
            "encoding": {
                "color": line["color"],
                "opacity": {"condition": {"param": "near", "empty": False, "value": 1},
                            "value": 0},
                "tooltip": TOOLTIP,
            },
        },
    ]  # fmt: skip


def chart(
    studies: list[Part], data: list[dict[str, Any]], steps: list[tuple[int, ...]]
) -> dict[str, Any]:
    """Return the chart as a Vega-Lite specification.

    Its parameters are the fields of the form: study, quantity, methods, seeds, and whether each
    seed has a line.
    """
    methods = methods_of(studies)
    ink = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), "currentColor")
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": "Curves of the chosen methods over training; the table below has the runs.",
        "width": "container",
        "height": 360,
        "background": None,
        "config": {
            "font": "inherit",
            "axis": {**ink, "gridOpacity": 0.2, "gridColor": "currentColor", "labelFontSize": 12},
            "title": {"color": "currentColor", "anchor": "start", "fontSize": 14},
            "view": {"stroke": None},
            "aria": False,
        },
        "title": {"text": {"expr": "names[quantity]"}},
        "data": {"values": data},
        "params": [
            {"name": "study", "value": studies[0].name},
            {"name": "quantity", "value": "train_loss"},
            {"name": "methods", "value": list(methods)},
            {"name": "seeds", "value": seeds_of(studies)},
            {"name": "single", "value": False},
            {"name": "names", "value": NAMES},
            {"name": "steps", "value": steps},
            {"name": "log", "expr": f"indexof({json.dumps(LOG)}, quantity) >= 0"},
        ],
        "transform": TRANSFORM,
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "training step",
                  "scale": {"zero": False}, "axis": {"grid": False, "tickCount": 5}},
            "y": HEIGHT,
        },
        "layer": layers(methods),
    }  # fmt: skip


def seeds_of(studies: Iterable[Part]) -> list[int]:
    """Return the seeds of all runs, sorted."""
    runs = (run for part in studies for curves in part.curves for run in curves.runs)
    return sorted({int(run.config["seed"]) for run in runs})
