"""What the commands share in speaking to people and to programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

Report = Callable[[int, int], None]  # what is done, and how much there is
FIELDS = (  # each kappa beside the ranks that say what it means
    "kappa",
    "kappa_support",
    "rank",
    "structural_rank",
    "rank_tol",
    "negative",
    "kappa_eps",
    "effective_rank",
    "stable_rank",
    "lambda_max",
)


def print_skipped(skipped: Mapping[str, str]) -> None:
    """One line on the standard error for each figure or table that has no runs."""
    for name, reason in skipped.items():
        typer.echo(f"{name}: skipped: {reason}", err=True)


def print_json(value: Any) -> None:
    """A value as JSON that any program reads: inf and nan, which JSON does not have, as strings."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress(name: str) -> Iterator[Report]:
    """A bar on the standard error, where a person looks at it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as shown:
        bar = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(bar, completed=done, total=total)


def print_phases(phases: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of what ``by_phase`` gives: a row a field, a median and a range for each phase."""
    from tabulate import tabulate

    if not phases:
        typer.echo("no records\n")
        return
    table = [[field, *(c for p in phases.values() for c in _cells(p[field]))] for field in FIELDS]
    headers = ["field"]
    for name, phase in phases.items():
        headers += [f"{name} ({phase['records']} records)", "min", "max"]
    typer.echo(f"{tabulate(table, headers=headers, disable_numparse=True)}\n")


def _cells(value: Any) -> list[str]:
    """Median and range, or a number that is the same in all records."""
    if isinstance(value, Mapping):
        return [number(value[end]) for end in ("median", "min", "max")]
    return [number(value), "", ""]


def number(value: float | None) -> str:
    """Four digits, or a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"
