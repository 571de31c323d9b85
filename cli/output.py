"""Standard streams of a command on which a failed write does not stop the command.

Any write can fail, in our code or in a library, because a disk is full or the reader of a pipe has
exited. A failed write is recorded and the command continues: it still trains its run and writes its
files. At the end, the exit code and one line on the standard error report the incomplete output.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

REPLACE = "orthocond.replace"


class Descriptor(io.FileIO):
    """File descriptor to which every write appears to succeed.

    Attributes:
        failure: the error of the first failed write; None if no write failed.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the data if possible, and return that all of it was written."""
        try:
            while (count := super().write(data)) is None:  # non-blocking, and full
                select.select((), (self,), ())
            return count
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


class Text(io.TextIOWrapper):
    """Text stream without access to the underlying byte buffer.

    typer considers an ASCII stream misconfigured and would write UTF-8 to its buffer.
    """

    buffer = None  # type: ignore[assignment]


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Restore undecodable bytes of a file name; use ``?`` for a character without encoding."""
    if isinstance(error, UnicodeEncodeError):
        error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


codecs.register_error(REPLACE, _replace)


def _guarded(stream: TextIO | None) -> tuple[Descriptor, Text]:
    """Return a stream with the same target whose writes do not raise.

    Args:
        stream: a standard stream, or None if it was closed when the process started. Then every
            write fails, and the failure is recorded.
    """
    # The next opened file would get the number of a closed descriptor, and text that a library
    # prints would go into that file. So a read-only file takes the number: no write to it succeeds.
    number = stream.fileno() if stream else os.open(os.devnull, os.O_RDONLY)
    descriptor = Descriptor(number, "w", closefd=False)
    errors = (stream.errors if stream else None) or "strict"
    text = Text(
        io.BufferedWriter(descriptor),
        encoding=stream.encoding if stream else "utf-8",
        errors=REPLACE if errors in ("strict", "surrogateescape") else errors,
        line_buffering=stream is sys.stderr or descriptor.isatty(),
    )
    return descriptor, text


class Output:
    """Standard output and error of this process; creating it guards both."""

    def __init__(self) -> None:
        if sys.stdin is None:
            os.open(os.devnull, os.O_RDONLY)  # takes the number of the closed standard input
        self.descriptor, sys.stdout = _guarded(sys.stdout)
        _, sys.stderr = _guarded(sys.stderr)

    def failure(self) -> OSError | None:
        """Return the error that made the standard output incomplete, or None.

        If the reader of a pipe has exited, it wanted no more output, so this is no failure.
        """
        sys.stdout.flush()
        failure = self.descriptor.failure
        return None if isinstance(failure, BrokenPipeError | ConnectionResetError) else failure
