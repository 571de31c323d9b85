"""What the commands say beside their results."""

from __future__ import annotations

from collections.abc import Mapping

import typer


def print_skipped(skipped: Mapping[str, str]) -> None:
    """One line on the standard error for each figure or table that has no runs."""
    for name, reason in skipped.items():
        typer.echo(f"{name}: skipped: {reason}", err=True)
