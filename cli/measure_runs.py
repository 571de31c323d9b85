"""What ``orthocond measure RUNS`` prints: the conditioning that runs recorded."""

from __future__ import annotations

from pathlib import Path

import typer

from orthocond.measuring import measure_run, named_runs
from orthocond_cli.printing import print_json, print_phases


def measure_runs(paths: list[Path], as_json: bool) -> None:
    """Verify runs and print the conditioning of each, by phase."""
    results = [measure_run(run) for run in named_runs(paths)]
    if as_json:
        print_json(results)
        return
    for result in results:
        typer.echo(f"{result['run']}  {result['status']}, verified")
        print_phases(result["phases"])
