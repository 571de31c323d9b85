"""Errors for people: one line that names the value, what is allowed and the nearest match."""

from __future__ import annotations

import copyreg
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

MEMORY = re.compile(  # texts of the errors that have no class of their own
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|bad_alloc"  # by torch
    r"|Storage size calculation overflowed|integer multiplication overflow|Overflow when unpacking"
    r"|array is too big|Maximum allowed (size|dimension) exceeded"  # by numpy
)
ASKED = re.compile(r"allocate (\d+ bytes|[\d.]+ [KMGTPE]?i?B)")
SIZE = re.compile(  # what torch, torchvision and timm say of images too small, or of another size
    r"greater than actual input size|output size is too small|padding size should be less"
    r"|(image|input) (image )?(height|width|size|resolution)|positional embed"
    r"|(height|width|size|resolution) .{,20}divisible"
    r"|more than 1 value per channel|non-zero (dim|size)|non-empty"
    # The channels are always three: where shapes do not fit, height and width are the reason.
    r"|is invalid for input of size|shapes cannot be multiplied|size of tensor|sizes of tensors"
    r"|expected size for first two dimensions|broadcast",
    re.IGNORECASE,
)


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


class OutOfMemory(UserError):
    """The machine has less memory than was asked for (exit code 1)."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is short, on a GPU or in the machine.

    torch has a class for it only on a GPU: its allocator on a CPU raises a plain RuntimeError. A
    size that is beyond every machine raises all kinds of errors, which count as well.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("wrong image height"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, UserError):
        return False
    return MEMORY.search(str(error)) is not None


def out_of_memory(error: BaseException, remedy: str = "") -> OutOfMemory:
    """Return the line about an error for which ``is_out_of_memory`` holds.

    Args:
        error: its text may say how much was asked for.
        remedy: what to lower.

    Example:
        >>> error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0")
        >>> str(out_of_memory(error, "lower --batch-size"))
        'out of memory (20.00 GiB asked for): lower --batch-size'
    """
    asked = ASKED.search(str(error))
    amount = f" ({asked[1].replace('. ', ' ')} asked for)" if asked else ""  # numpy: "128. MiB"
    return OutOfMemory(f"out of memory{amount}" + (f": {remedy}" if remedy else ""))


@contextmanager
def memory_short(remedy: str) -> Iterator[None]:
    """Turn whatever says that memory is short into one line.

    Args:
        remedy: what to lower.

    Raises:
        OutOfMemory: memory was short inside.

    Example:
        >>> with memory_short("lower --batch-size"):
        ...     bytearray(2**60)
        Traceback (most recent call last):
        orthocond.errors.OutOfMemory: out of memory: lower --batch-size
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, remedy) from error


@contextmanager
def images_taken(shape: Iterable[int]) -> Iterator[None]:
    """Turn what a network raises over images that it does not take into one line.

    The line names ``--size`` where the error is about height and width. An error that says that
    memory is short passes: the images are not what is wrong.

    Args:
        shape: of the images, (B, 3, H, W).

    Raises:
        UserError: the network has raised anything else.

    Example:
        >>> with images_taken((1, 3, 8, 8)):  # doctest: +ELLIPSIS
        ...     raise AssertionError("Wrong image height!")
        Traceback (most recent call last):
        orthocond.errors.UserError: the network ... height!; choose another --size than 8
    """
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        shape, reason = tuple(shape), str(error).partition("\n")[0]
        advice = f"; choose another --size than {shape[-1]}" if SIZE.search(reason) else ""
        raise UserError(f"the network does not take images {shape}: {reason}{advice}") from error
