"""Errors for people: one line that names the value, what is allowed and the nearest match."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something that was asked for can't be done; the message is one line, meant for a person."""

    exit_code = 2  # of the command line


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
