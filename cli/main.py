"""Entry point of the command line: every outcome becomes an exit code and at most one line.

Exit codes: 0 for success; 1 if some runs failed, or for lack of memory, a disk error or output that
cannot be written; 2 for wrong usage; 130 after Ctrl-C and 143 after SIGTERM. An error is one line
on the standard error. The Ctrl-C handler is installed before any slow import, and torch is imported
only inside the commands.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings

INTERRUPTED = 128 + signal.SIGINT


def _fail(message: str, code: int) -> int:
    """Print an error as one line and return the exit code."""
    print(f"orthocond: {' '.join(message.split())}", file=sys.stderr)
    return code


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line."""
    print(f"orthocond: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _leave(*_: object) -> None:
    """Exit at once. An exception could be lost or replaced by the imports that it interrupts.

    While a run is trained, its session handles the signal instead, and saves the state first.
    """
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(INTERRUPTED)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    import typer

    from .app import app

    warnings.showwarning = _warn  # one line, without the place in the source code
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        return _fail(error.format_message(), 2)
    except Exception as error:
        from orthocond.errors import UserError, is_out_of_memory, out_of_memory

        if is_out_of_memory(error):
            error = out_of_memory(error)
        elif isinstance(error, OSError):  # of the machine, or of a path that the user named
            if error.filename is None:
                return _fail(str(error), 1)
            error = UserError(f"cannot use {str(error.filename)!r}: {error.strerror}")
        if not isinstance(error, UserError):
            raise
        return error.exit_code if error.told else _fail(str(error), error.exit_code)


def main() -> None:
    """Run the command line and exit."""
    from .output import Output

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, _leave)
    # Figures go to files only. An unknown backend here would end the import of matplotlib.
    os.environ["MPLBACKEND"] = "agg"
    output = Output()
    code = run()
    failure = output.failure()
    if failure is not None:
        code = _fail(f"cannot write the output: {failure.strerror}", code or 1)
    sys.exit(code)
