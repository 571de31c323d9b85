"""The standard streams of a command, made so that no write to them ends the command halfway.

A disk may be full, or the reader of a pipe gone, at any write, in code of ours or of a library. So
a failed write is noted and the command goes on: its run is trained and its files are written. The
exit code and one line on the standard error tell at the end that the output is not whole.
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
    """A file descriptor to which every write seems to succeed.

    Attributes:
        failure: the first write that did not; None while all did.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written, and say that all of it was."""
        try:
            while (count := super().write(data)) is None:  # it does not block, and is full
                select.select((), (self,), ())
            return count
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


class Text(io.TextIOWrapper):
    """Text for a descriptor, without access to its bytes.

    typer takes a stream in ASCII for a misconfigured one, and would write UTF-8 to its buffer.
    """

    buffer = None  # type: ignore[assignment]


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Give a byte of a file name back as it came, and ``?`` for what the encoding does not have."""
    if isinstance(error, UnicodeEncodeError):
        error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


codecs.register_error(REPLACE, _replace)


def _guarded(stream: TextIO | None) -> tuple[Descriptor, Text]:
    """Return a stream to the same place whose writes do not raise, though all fail if it is closed.

    Args:
        stream: a standard stream; None where the process was started with it closed.
    """
    # A closed descriptor's number would go to the next file that is opened, and with it whatever a
    # library prints. To what is open for reading no write succeeds.
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
    """The standard output and error of this process, guarded from here on."""

    def __init__(self) -> None:
        if sys.stdin is None:
            os.open(os.devnull, os.O_RDONLY)  # holds its number
        self.descriptor, sys.stdout = _guarded(sys.stdout)
        _, sys.stderr = _guarded(sys.stderr)

    def failure(self) -> OSError | None:
        """Return why the standard output is not whole, or None.

        A reader that has gone wanted no more of it: that is no failure.
        """
        sys.stdout.flush()
        failure = self.descriptor.failure
        return None if isinstance(failure, BrokenPipeError | ConnectionResetError) else failure
