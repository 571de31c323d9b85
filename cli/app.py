"""Application with all commands: ``orthocond train | measure | plot | table``."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .measure import app as measure
from .plot import plot
from .table import table
from .train import train

app = typer.Typer(
    help="Train, measure, plot and tabulate networks with spectral layers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, plot, table):
    app.command()(command)
app.add_typer(measure, name="measure")


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(version("orthocond"))
        except PackageNotFoundError:  # a source tree that was never installed
            typer.echo("unknown")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Train, measure, plot and tabulate networks with spectral layers."""
