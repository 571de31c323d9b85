"""The entry point: ``orthocond``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Train, measure, plot and tabulate networks with spectral layers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Train, measure, plot and tabulate networks with spectral layers."""


def main() -> None:
    """Run the command line."""
    app()
