"""Output that the commands share, for people and for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

Report = Callable[[int, int], None]  # the number of steps done, and of all steps
FIRST = ("kappa", "kappa_support", "rank", "structural_rank", "rank_tol")
"""Fields shown before the others: each kappa next to the ranks that are needed to interpret it."""


def print_skipped(skipped: Mapping[str, str]) -> None:
    """Print one line on the standard error for each figure or table without runs."""
    for name, reason in skipped.items():
        typer.echo(f"{name}: skipped: {reason}", err=True)


def print_further(names: Iterable[str]) -> None:
    """Print one line on the standard error for studies that are shown only if they are named."""
    if further := ", ".join(names):
        text = f"smaller studies of the same data set: {further}; --study shows one of them"
        typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a value as standard JSON: inf and nan, which JSON lacks, become strings."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return a value in which strings replace inf and nan, at any depth."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress(name: str) -> Iterator[Report]:
    """Show a progress bar on the standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as shown:
        bar = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(bar, completed=done, total=total)


def print_phases(phases: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the result of ``by_phase``: one row per field, with median and range per phase."""
    from tabulate import tabulate

    if not phases:
        typer.echo("no records\n")
        return
    others = [f for f in next(iter(phases.values())) if f not in (*FIRST, "records")]
    fields = (*FIRST, *others)
    table = [[field, *(c for p in phases.values() for c in _cells(p[field]))] for field in fields]
    headers = ["field"]
    for name, phase in phases.items():
        headers += [f"{name} ({phase['records']} records)", "min", "max"]
    typer.echo(f"{tabulate(table, headers=headers, disable_numparse=True)}\n")


def _cells(value: Any) -> list[str]:
    """Return median, min and max, or a constant and two empty cells."""
    if isinstance(value, Mapping):
        return [number(value[end]) for end in ("median", "min", "max")]
    return [number(value), "", ""]


def number(value: float | None) -> str:
    """Return a number with four digits, or a dash for None."""
    return "-" if value is None else f"{value:.4g}"
