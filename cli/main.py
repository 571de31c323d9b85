"""The entry point: what a command ends with, whatever happens.

Exit codes: 0 done, 1 some runs failed, 2 wrong usage; 130 and 143 after Ctrl-C and SIGTERM. What
went wrong is one line on the standard error. Nothing slow is imported before Ctrl-C has its answer;
torch is imported inside the commands only.
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
    except ValueError as error:
        from orthocond.errors import UserError

        if not isinstance(error, UserError):
            raise
        return error.exit_code if error.told else _fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 1


def main() -> None:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, _leave)
    sys.exit(run())
