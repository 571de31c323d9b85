"""Receipt of a reproduction: a text that a stranger can post, and the same as a record for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from orthocond.artifacts.run_search import study_of
from orthocond.measure.reproduction import Reproduction
from orthocond.measure.run_figures import LEVEL


def as_record(reproduction: Reproduction) -> dict[str, Any]:
    """Return a reproduction as plain values: the content of the receipt, for JSON."""
    run, retrained = reproduction.run, reproduction.retrained
    data = run.settings["data"]
    return {
        "run": run.name,
        "study": study_of(run),
        "config": run.config["hash"],
        "data": {"name": data["name"], "fingerprint": data["fingerprint"]},
        "other_seeds": [r.settings["seed"] for r in reproduction.seeds],
        "epochs": retrained.steps / retrained.epoch_steps,
        "epochs_of_run": run.settings["epochs"],
        "steps": retrained.steps,
        "environments": {
            key: {"recorded": there, "here": here}
            for key, (there, here) in reproduction.environments.items()
        },
        "other_machine": reproduction.other_machine,
        "rows": {table: asdict(rows) for table, rows in reproduction.rows.items()},
        "unrecorded": reproduction.unrecorded,
        "figures": [
            asdict(figure) | {"difference": figure.difference, "within": figure.within}
            for figure in reproduction.figures
        ],
        "reproduces": reproduction.verdict.reproduces,
        "verdict": reproduction.verdict.text,
    }


def as_markdown(reproduction: Reproduction) -> str:
    """Return the receipt as Markdown: identity, environments, figures, and last the verdict."""
    record = as_record(reproduction)
    environments = [
        [key, *(_entry(values[side]) for side in ("recorded", "here"))]
        for key, values in record["environments"].items()
    ]
    parts = [
        f"# Reproduction receipt: {record['run']}",
        _about(record),
        _table(environments, ["environment", "recorded", "here"]),
        _machines(record["other_machine"]),
        _rows(record),
        _table([_cells(figure) for figure in record["figures"]], FIGURE_HEADERS),
        _tolerance(reproduction),
        f"**Verdict for {_extent(record)}: {record['verdict']}.**",
    ]
    return "\n\n".join(parts) + "\n"


FIGURE_HEADERS = [
    "figure", "epoch", "recorded", "here", "difference", "tolerance", "within", "largest",
]  # fmt: skip


def _about(record: dict[str, Any]) -> str:
    """Return the lines that identify the run and what was trained again."""
    data = record["data"]
    return "\n".join(
        (
            f"- study `{record['study']}`, configuration `{record['config']}`",
            f"- data `{data['name']}`, fingerprint `{data['fingerprint']}`: the same here",
            f"- trained again: {_extent(record)} ({record['steps']} steps), with the schedule of "
            "the whole run",
        )
    )


def _extent(record: dict[str, Any]) -> str:
    return f"{record['epochs']:.4g} of {record['epochs_of_run']} epochs"


def _machines(differing: list[str]) -> str:
    if not differing:
        return "The machine and the number of threads are the recorded ones."
    return (
        "Another machine, or one that is not known to be the same, because of: "
        f"{', '.join(differing)}."
    )


def _rows(record: dict[str, Any]) -> str:
    """Return how many rows are equal, and which columns the recorded run lacks."""
    tables = [
        f"{rows['equal']} of {rows['recorded']} in {table}.csv"
        for table, rows in record["rows"].items()
    ]
    text = f"Rows that are equal to the byte: {', '.join(tables)}."
    if record["unrecorded"]:
        text += f" Columns that are newer than the run: {', '.join(record['unrecorded'])}."
    return text


def _tolerance(reproduction: Reproduction) -> str:
    """Return how the tolerances were made, and what the last column is."""
    largest = "The last column is the largest difference at any compared epoch."
    if not reproduction.other_machine:
        return f"Tolerance: 0, since equal bytes are expected. {largest}"
    if all(figure.tolerance is None for figure in reproduction.figures):
        return f"No tolerance: {reproduction.no_tolerance}. {largest}"
    count = sum(bool(figure.tolerance) for figure in reproduction.figures)
    n = len(reproduction.seeds)
    return (
        f"Tolerance: t √2 s, with the standard deviation s of a figure over the {n} other seeds of "
        f"this method and these settings, and the quantile t of Student's distribution with "
        f"{n - 1} degrees of freedom, at level {LEVEL:.0%} for {count} figures together. {largest}"
    )


def _cells(figure: dict[str, Any]) -> list[str]:
    within = {True: "yes", False: "NO", None: "-"}[figure["within"]]
    numbers = [
        _number(figure["recorded"], 9),
        _number(figure["here"], 9),
        _number(figure["difference"], 3),
        _number(figure["tolerance"], 3),
    ]
    return [figure["name"], str(figure["epoch"]), *numbers, within, _number(figure["largest"], 3)]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def _entry(value: Any) -> str:
    if value is None:
        return "not recorded"
    return "yes" if value is True else str(value)


def _table(rows: list[list[str]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
