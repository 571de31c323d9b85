"""Error classes and checks. Each message is one line: the bad value, what is allowed, a remedy."""

from __future__ import annotations

import copyreg
import errno
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

MEMORY = re.compile(  # messages of out-of-memory errors that have no exception class of their own
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|bad_alloc"  # by torch
    r"|Storage size calculation overflowed|integer multiplication overflow|Overflow when unpacking"
    r"|array is too big|Maximum allowed (size|dimension) exceeded"  # by numpy
)
ASKED = re.compile(r"allocate (\d+ bytes|[\d.]+ [KMGTPE]?i?B)")
SIZE = re.compile(  # messages of torch, torchvision and timm about images of an unsuitable size
    r"greater than actual input size|output size is too small|padding size should be less"
    r"|(image|input) (image )?(height|width|size|resolution)|positional embed"
    r"|(height|width|size|resolution) .{,20}divisible"
    r"|more than 1 value per channel|non-zero (dim|size)|non-empty"
    # The images always have three channels, so a shape mismatch comes from height and width.
    r"|is invalid for input of size|shapes cannot be multiplied|size of tensor|sizes of tensors"
    r"|expected size for first two dimensions|broadcast",
    re.IGNORECASE,
)


class UserError(ValueError):
    """Error for bad input. Its message is one line: the value, what is allowed and what to do.

    Every public function and layer raises it for bad arguments. It is a ValueError.

    Example:
        >>> try:
        ...     oc.optimal_lr(torch.eye(2), torch.eye(2), rule="newtn")
        ... except oc.UserError as error:
        ...     print(error)
        unknown rule 'newtn': allowed are paper, newton, exact; did you mean 'newton'?
    """

    exit_code = 2  # exit status of the command line
    told = False  # True if another process of the group reports it: the line is printed only once

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling with the message kept, whatever arguments ``__init__`` takes."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class DecompositionError(ArithmeticError):
    """Error for a matrix that could not be decomposed.

    Functions that return a plain value raise it. Layers record the failure and do not raise.

    Example:
        >>> try:
        ...     oc.matrix_sqrt(torch.full((2, 2), torch.nan))
        ... except oc.DecompositionError as error:
        ...     print(str(error).partition(":")[0])
        1 of 1 matrices could not be decomposed
    """


def require_floating(x: Tensor, what: str) -> None:
    """Raise a UserError if x is not a tensor of a real floating dtype.

    Args:
        x: the value to check.
        what: name of the value in the message.

    Example:
        >>> require_floating(torch.eye(2, dtype=torch.complex64), "matrices")
        Traceback (most recent call last):
        orthocond.errors.UserError: expected matrices of a real floating dtype, got torch.complex64
    """
    if not isinstance(x, Tensor):
        raise UserError(f"expected {what} as a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise UserError(f"expected {what} of a real floating dtype, got {x.dtype}")


def require_whole(value: Any, what: str, least: int = 1, most: int | None = None) -> None:
    """Raise a UserError if a value is not a whole number from ``least`` to ``most``.

    Args:
        value: the value to check.
        what: name of the value in the message.
        least: smallest allowed value.
        most: largest allowed value; None if there is none.

    Example:
        >>> require_whole(0, "every")
        Traceback (most recent call last):
        orthocond.errors.UserError: every is 0: allowed are whole numbers from 1
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        end = "" if most is None else f" to {most}"
        raise UserError(f"{what} is {value!r}: allowed are whole numbers from {least}{end}")


def require_nonnegative(value: float, what: str) -> None:
    """Raise a UserError if a value is not a number, or is negative, infinite or NaN.

    Args:
        value: the number to check.
        what: name of the value in the message.

    Example:
        >>> require_nonnegative(-1.0, "eps")
        Traceback (most recent call last):
        orthocond.errors.UserError: eps must be 0 or more and finite, got -1.0
    """
    if not isinstance(value, Real | Tensor) or not 0 <= value < math.inf:
        raise UserError(f"{what} must be 0 or more and finite, got {value!r}")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message that suggests the most similar allowed name.

    It is empty if no allowed name is similar.

    Example:
        >>> nearest("nogg", ["nog", "olr"])
        "; did you mean 'nog'?"
    """
    matches = get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the allowed ones.

    Example:
        >>> unknown("rule", "newtn", ["paper", "newton"]).args[0]
        "unknown rule 'newtn': allowed are paper, newton; did you mean 'newton'?"
    """
    allowed = list(allowed)
    return UserError(
        f"unknown {kind} {name[:60]!r}: allowed are {', '.join(allowed)}{nearest(name, allowed)}"
    )


class OutOfMemory(UserError):
    """Error for a request of more memory than the machine has (exit code 1)."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that GPU or CPU memory ran out.

    torch has an exception class for this on a GPU only. On a CPU its allocator raises a plain
    RuntimeError. A size too large for any machine raises errors of many kinds; these count too.

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
    """Return an OutOfMemory with a one-line message for an error that ``is_out_of_memory`` accepts.

    Args:
        error: the original error. The message quotes the requested amount if the error states it.
        remedy: advice at the end of the message, such as which setting to lower.

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
    """Replace any out-of-memory error raised inside the block by a one-line OutOfMemory.

    Args:
        remedy: advice at the end of the message, such as which setting to lower.

    Raises:
        OutOfMemory: memory ran out inside the block.

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
    """Replace the error of a network that rejects its input images by a one-line UserError.

    The line advises another ``--size`` if the error is about height and width. An out-of-memory
    error passes unchanged, because the images are not its cause.

    Args:
        shape: shape (B, 3, H, W) of the images.

    Raises:
        UserError: the network raised a RuntimeError, ValueError or AssertionError.

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
