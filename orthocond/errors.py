"""Errors for people: one line that names the value, what is allowed and the nearest match."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from torch import Tensor


class UserError(ValueError):
    """Bad input: one line that names the value, what is allowed and what to do.

    Every public function and layer raises it for bad arguments. It is a ValueError.

    Example:
        >>> try:
        ...     oc.optimal_lr(torch.eye(2), torch.eye(2), rule="newtn")
        ... except oc.UserError as error:
        ...     print(error)
        unknown rule 'newtn': allowed are paper, newton, exact; did you mean 'newton'?
    """

    exit_code = 2  # of the command line
    told = False  # by another process of the group, so that the line is printed once

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process with the message, whatever ``__init__`` takes."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class DecompositionError(ArithmeticError):
    """A matrix could not be decomposed, and the caller asked for a value rather than a record.

    Example:
        >>> try:
        ...     oc.matrix_sqrt(torch.full((2, 2), torch.nan))
        ... except oc.DecompositionError as error:
        ...     print(str(error).partition(":")[0])
        1 of 1 matrices could not be decomposed
    """


def require_floating(x: Tensor, what: str) -> None:
    """Raise a UserError where x is not a tensor of a real floating dtype.

    Example:
        >>> require_floating(torch.eye(2, dtype=torch.complex64), "matrices")
        Traceback (most recent call last):
        orthocond.errors.UserError: expected matrices of a real floating dtype, got torch.complex64
    """
    if not isinstance(x, Tensor):
        raise UserError(f"expected {what} as a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise UserError(f"expected {what} of a real floating dtype, got {x.dtype}")


def require_whole(value: Any, what: str, least: int = 1) -> None:
    """Raise a UserError where a value is not a whole number from ``least`` on.

    Example:
        >>> require_whole(0, "every")
        Traceback (most recent call last):
        orthocond.errors.UserError: every is 0: allowed are whole numbers from 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{what} is {value!r}: allowed are whole numbers from {least}")


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
