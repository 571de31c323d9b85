"""``orthocond measure runs``: print the conditioning that runs recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from orthocond.measure.recorded_runs import measure_run, named_runs

from .printing import number, print_json, print_phases

SHOWN = ("rank", "kappa", "kappa_support", "kappa_eps")


def measure_runs(paths: list[Path], as_json: bool) -> None:
    """Verify runs and print their conditioning: all fields of one run, or one line per run."""
    results = [measure_run(run) for run in named_runs(paths)]
    if as_json:
        print_json(results)
    elif len(results) == 1:
        typer.echo(f"{results[0]['run']}  {results[0]['status']}, verified")
        print_phases(results[0]["phases"])
    else:
        _print_lines(results)


def _print_lines(results: list[dict[str, Any]]) -> None:
    """Print one line per run: medians over the training phase."""
    from tabulate import tabulate

    rows = []
    for result in results:
        phase = result["phases"].get("train", {})
        medians = [number(phase[field]["median"] if phase else None) for field in SHOWN]
        rows.append([result["run"], result["status"], *medians])
    typer.echo(tabulate(rows, headers=["run", "status", *SHOWN], disable_numparse=True))
    typer.echo(
        f"\n{len(results)} runs, verified: medians over training. Name one run for its ranges, all "
        "fields, and evaluation."
    )
