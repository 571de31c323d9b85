"""What the host does for a device: checks that may raise, and float64 where a device has none.

Note [Refusals in a graph]
    A check that raises reads a flag of the device. A graph can't branch on it, so inside of a trace
    a check is an operator, ``torch.ops.orthocond.refuse``, through which the checked value passes:
    an operator whose result is not used would be removed.

Note [No float64]
    MPS has no float64. There all that is d x d, decompositions, their checks, iterations, roots and
    their gradients, moves to the CPU, stays in float64, and the results come back in the dtype of
    the features. So the answers have the accuracy of the other devices, at the cost of a few small
    copies, which the host waits for. Sums over the features (moments, and the products of the
    gradient with the features) are too large to move: they are in float32 on the device, and only
    their results are float64 on the CPU. Small inputs move whole. This was tested with a simulated
    device (tests/test_no_float64.py), never on a Mac.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError

CPU = torch.device("cpu")


def is_exporting() -> bool:
    """Return whether torch.export traces the operations of this moment.

    torch.compiler.is_exporting() is this flag, but torch 2.11 takes it for True in torch.compile.
    """
    return torch.compiler._is_exporting_flag


def has_float64(device: torch.device) -> bool:
    """Return whether tensors of this device can be float64."""
    return device.type != "mps"


def wide_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU if it has no float64 (Note [No float64])."""
    return device if has_float64(device) else CPU


def full_precision(t: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which autocast does not round products on t's device.

    A backward pass needs it even if its forward pass ran in one: autograd has the autocast of the
    caller of ``backward``, and torch.compile that of the caller of the model.

    Example:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu"), full_precision(x):
        ...     (x @ x).dtype
        torch.float32
    """
    if t.device.type == "meta":  # torch.autocast refuses it
        return nullcontext()
    return torch.autocast(t.device.type, enabled=False)


def is_batched(t: Tensor) -> bool:
    """Return whether t is a batch of gradients in torch.autograd.grad(is_grads_batched=True)."""
    if torch.compiler.is_compiling():
        return False
    return bool(torch._C._functorch.is_legacy_batchedtensor(t))


def with_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Return t converted to a dtype, on the CPU if this is float64 and t's device has none."""
    if dtype == torch.float64:
        t = t.to(wide_device(t.device))
    return t.to(dtype)


def double(t: Tensor) -> Tensor:
    """Return t in float64, on the CPU if its device has none.

    Example:
        >>> double(torch.ones(2, dtype=torch.float16)).dtype
        torch.float64
    """
    return with_dtype(t, torch.float64)


def like(t: Tensor, other: Tensor) -> Tensor:
    """Return t in the dtype and on the device of another tensor.

    A conversion that changes nothing is left out: compiled by torch 2.11, an autograd.Function
    that returns the result of one has a gradient of zero.
    """
    return t if (t.dtype, t.device) == (other.dtype, other.device) else t.to(other)


def double_sum(t: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Return the sum over dimensions, in float64, or in t's dtype if the device has none."""
    if has_float64(t.device):
        return t.sum(dims, dtype=torch.float64)
    return double(t.sum(dims))


class Refusal(NamedTuple):
    """A check of a value, and the error if it does not pass.

    Attributes:
        flag: (), bool; True to refuse the value.
        error: UserError or DecompositionError.
        line: message of the error, in which {} is the number.
        number: (), a number for the message.
    """

    flag: Tensor
    error: type[UserError] | type[DecompositionError]
    line: str
    number: Tensor | None = None


def _raise(refusal: Refusal) -> None:
    number = refusal.number
    raise refusal.error(refusal.line.format(*[] if number is None else [number.item()]))


def refuse(value: Tensor, *refusals: Refusal) -> Tensor:
    """Return the value, or raise the error of the first flag that is True. The host reads one flag.

    Example:
        >>> x = torch.tensor(-1.0)
        >>> refuse(x, Refusal(x > 0, oc.UserError, "expected 0 or less, got {:.3g}", x)).item()
        -1.0
    """
    if torch.compiler.is_compiling():  # Note [Refusals in a graph]
        for flag, error, line, number in refusals:
            value = _operator(value, flag, number, error is UserError, line)
        return value
    flags = [refusal.flag for refusal in refusals]
    if flags[0].is_meta:  # there is nothing to check
        return value
    if flags[0] if len(flags) == 1 else torch.stack(flags).any():
        for refusal in refusals:
            if refusal.flag:
                _raise(refusal)
    return value


@torch.library.custom_op("orthocond::refuse", mutates_args=())
def _operator(
    value: Tensor, flag: Tensor, number: Tensor | None, by_user: bool, line: str
) -> Tensor:
    if flag:
        _raise(Refusal(flag, UserError if by_user else DecompositionError, line, number))
    return value.clone()


@_operator.register_fake
def _(value: Tensor, flag: Tensor, number: Tensor | None, by_user: bool, line: str) -> Tensor:
    return torch.empty_like(value)


def _gradient(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return g, None, None, None, None


_operator.register_autograd(_gradient)
