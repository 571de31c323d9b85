"""Modes that refuse what makes the host wait for a device, for tests on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = (  # their result, or its shape, is known to the host only when the device has computed it
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "nonzero_numpy",
    "argwhere",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "linalg_eigh",
    "_linalg_eigh",
    "_linalg_svd",
    "_linalg_check_errors",
    "linalg_cholesky_ex",
    "linalg_inv_ex",
    "_linalg_solve_ex",
    "lift_fresh",  # torch.tensor(...): a copy from pageable memory
    "lift_fresh_copy",
)


class HostRead(AssertionError):
    """An operator that would make the host wait."""


class _Operators(TorchDispatchMode):
    def __init__(self, found: Callable[[str], None]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if name in READS or masks:
            self.found(name)
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """These reach no operator on a CPU."""

    def __init__(self, found: Callable[[str], None]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__):
            self.found(func.__name__)
        return func(*args, **(kwargs or {}))


def _refuse(name: str) -> None:
    raise HostRead(f"{name} reads the device")


@contextmanager
def no_reads() -> Iterator[None]:
    """Raise a HostRead at the first operator inside the block whose result the host must read."""
    with _Operators(_refuse), _Copies(_refuse):
        yield


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Count the operators inside the block whose result the host must read, by name."""
    counter: Counter[str] = Counter()

    def count(name: str) -> None:
        counter[name] += 1

    with _Operators(count), _Copies(count):
        yield counter
