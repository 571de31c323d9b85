"""The entry point: ``orthocond train | measure | plot | table``.

Exit codes: 0 done, 1 some runs failed, 2 wrong usage; 130 and 143 after Ctrl-C and SIGTERM. What
went wrong is one line on the standard error; torch is imported inside the commands only.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from orthocond_cli.measure import measure
from orthocond_cli.plot import plot
from orthocond_cli.table import table
from orthocond_cli.train import train

app = typer.Typer(
    help="Train, measure, plot and tabulate networks with spectral layers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, measure, plot, table):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("orthocond"))
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Train, measure, plot and tabulate networks with spectral layers."""


def _fail(message: str, code: int) -> int:
    print(f"orthocond: {' '.join(message.split())}", file=sys.stderr)
    return code


def _warn(message: Warning | str, *_: object) -> None:
    print(f"orthocond: warning: {' '.join(str(message).split())}", file=sys.stderr)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    warnings.showwarning = _warn  # a line, without the place in the source
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        return _fail(error.format_message(), 2)
    except ValueError as error:
        from orthocond.errors import UserError

        if not isinstance(error, UserError):
            raise
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 1


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run())
