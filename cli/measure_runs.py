"""``orthocond measure runs``: print the conditioning that runs recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from orthocond.artifacts.atomic_files import require_writable, write_bytes
from orthocond.measure.recorded_runs import measure_run, named_runs
from orthocond.report.results import results_csv

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


def write_results(paths: list[Path], out: Path) -> None:
    """Write the final figures of runs as CSV, and print the path; name the runs that have none."""
    require_writable(out)
    runs = named_runs(paths)
    complete = [run for run in runs if run.is_complete]
    write_bytes(out, results_csv(complete))
    typer.echo(str(out))
    if len(complete) < len(runs):
        typer.echo(f"{len(runs) - len(complete)} incomplete runs are left out", err=True)


def _print_lines(results: list[dict[str, Any]]) -> None:
    """Print one line per run: medians over the training phase."""
    from tabulate import tabulate

    several = len({result["study"] for result in results}) > 1
    rows = []
    for result in results:
        name = f"{result['study']}/{result['run']}" if several else result["run"]
        phase = result["phases"].get("train", {})
        medians = [number(phase[field]["median"] if phase else None) for field in SHOWN]
        rows.append([name, result["status"], *medians])
    typer.echo(tabulate(rows, headers=["run", "status", *SHOWN], disable_numparse=True))
    typer.echo(
        f"\n{len(results)} runs, verified: medians over training. Name one run for its ranges, all "
        "fields, and evaluation."
    )
