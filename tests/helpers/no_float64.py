"""A simulated device without float64, as MPS is one: tensors of it refuse float64 and the CPU's.

Its tensors report the device mps and hold a tensor on the CPU, which computes. A mode sees all
operators, and raises where an MPS device would: at a float64 tensor, and where a tensor of the
device meets one of the CPU that is neither a number nor an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps:0")
INSIDE = "meta"  # what the tensors are for torch itself, whose autograd needs a device that exists
COPIES = ("copy_", "_to_copy", "lift_fresh", "set_data")


class OnDevice(Tensor):
    """A tensor that says that it is on the device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=INSIDE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    device = property(lambda self: MPS)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = [t for t in given if isinstance(t, OnDevice)]
    others = [t for t in given if not isinstance(t, OnDevice)]
    device = kwargs.get("device")
    goes_to_ours = device is not None and torch.device(device).type in (MPS.type, INSIDE)
    if ours and name not in (*COPIES, "index", "index_put_"):
        number = ("add", "sub", "mul", "div", "rsub")
        if any(t.dim() or not name.startswith(number) for t in others):
            raise RuntimeError(f"{name}: expected all tensors on one device, got mps and cpu")
    result_is_ours = bool(ours) if device is None else goes_to_ours
    if name == "copy_":
        result_is_ours = isinstance(args[0], OnDevice)
    wrappers = {id(t.held): t for t in ours}
    kwargs = {k: torch.device("cpu") if k == "device" and v is not None else v
              for k, v in kwargs.items()}  # fmt: skip
    args, kwargs = tree_map(lambda t: t.held if isinstance(t, OnDevice) else t, (args, kwargs))
    found = func(*args, **kwargs)
    if not result_is_ours:
        return found

    def wrapped(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        if t.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{name}: the MPS framework doesn't support float64")
        return wrappers.get(id(t)) if id(t) in wrappers else OnDevice(t)

    return tree_map(wrapped, found)


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def no_float64() -> Iterator[torch.device]:
    """Simulate the device inside of the block: factories and ``to`` reach it by its name."""
    with _Device():
        yield MPS


def moved(t: Tensor) -> Tensor:
    """Return a tensor or parameter on the device; a leaf stays a leaf."""
    if isinstance(t, torch.nn.Parameter):
        return torch.nn.Parameter(OnDevice(t.detach()), t.requires_grad)
    return OnDevice(t)
