"""Errors for people: one line that names the value, what is allowed and the nearest match."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """Something that was asked for can't be done; the message is one line, meant for a person."""

    exit_code = 2  # of the command line
    told = False  # by another process of the group, so that the line is printed once

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process with the message, whatever ``__init__`` takes."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the allowed name most like the one given, or nothing.

    Example:
        >>> nearest("nogg", ["nog", "olr"])
        "; did you mean 'nog'?"
    """
    matches = get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is none of the allowed ones.

    Example:
        >>> unknown("rule", "newtn", ["paper", "newton"]).args[0]
        "unknown rule 'newtn': allowed are paper, newton; did you mean 'newton'?"
    """
    allowed = list(allowed)
    return UserError(
        f"unknown {kind} {name[:60]!r}: allowed are {', '.join(allowed)}{nearest(name, allowed)}"
    )


@contextmanager
def images_taken(shape: Iterable[int]) -> Iterator[None]:
    """Turn what a network raises over images that it does not take into one line.

    Example:
        >>> with images_taken((1, 3, 2, 2)):
        ...     raise RuntimeError("too\\nsmall")
        Traceback (most recent call last):
        orthocond.errors.UserError: the network does not take images (1, 3, 2, 2): too
    """
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the network does not take images {tuple(shape)}: {reason}") from error
