"""The entry point: what a command ends with, whatever happens.

Exit codes: 0 done, 1 some runs failed, or memory, a disk or the output did, 2 wrong usage; 130 and
143 after Ctrl-C and SIGTERM. What went wrong is one line on the standard error. Nothing slow is
imported before Ctrl-C has its answer; torch is imported inside the commands only.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings

INTERRUPTED = 128 + signal.SIGINT


def _fail(message: str, code: int) -> int:
    print(f"orthocond: {' '.join(message.split())}", file=sys.stderr)
    return code


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"orthocond: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _leave(*_: object) -> None:
    """End at once: an exception would pass through imports that turn it into another, or lose it.

    While a run is trained, its session answers the signal instead, and saves the state first.
    """
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(INTERRUPTED)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    import typer

    from .app import app

    warnings.showwarning = _warn  # a line, without the place in the source
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        return _fail(error.format_message(), 2)
    except Exception as error:
        from orthocond.errors import UserError, is_out_of_memory, out_of_memory

        if is_out_of_memory(error):
            error = out_of_memory(error)
        elif isinstance(error, OSError):  # of the machine, or of a path that was asked for
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
    output = Output()
    code = run()
    failure = output.failure()
    if failure is not None:
        code = _fail(f"cannot write the output: {failure.strerror}", code or 1)
    sys.exit(code)
