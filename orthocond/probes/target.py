"""The layer that a probe hooks: found through wrappers, with a warning where it is compiled.

Note [Compiled models]
    torch.compile traces the hooks of a layer into the code that it makes, and that code does not
    look for hooks that come later (torch._dynamo.config.skip_nnmodule_hook_guards). A probe
    attached before is called as Python code, at the price of a break in the graph; one attached
    after the first forward is never called, without any error.
"""

from __future__ import annotations

import sys
import warnings

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orthocond.errors import UserError, nearest

REMEDY = (
    "attach the probe before the first compiled forward, call torch._dynamo.reset() after "
    "attaching it, or run the original module"
)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name in the model or in what the model wraps.

    Warn where the layer is inside a module that was compiled: the hooks may never run.

    Raises:
        UserError: no layer has that name.
    """
    inner = unwrapped(model)
    names = dict(inner.named_modules())
    modules = names if name in names else dict(model.named_modules())
    if name not in modules or not name or unwrapped(modules[name]) is inner:
        raise UserError(
            f"unknown layer {name!r} of {type(inner).__name__}: allowed are the names in "
            f"model.named_modules(){nearest(name, filter(None, names))}"
        )
    layer = modules[name]
    parts = name.split(".")
    above = [modules[".".join(parts[:i])] for i in range(len(parts))]
    if any(map(_is_compiled, [*_wrappers(model), *above])) or layer._compiled_call_impl is not None:
        warnings.warn(
            f"layer {name!r} is inside a compiled module, whose code may not call hooks that come "
            f"later, and then the probe records nothing: {REMEDY}",
            stacklevel=3,
        )
    return layer


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what DistributedDataParallel and torch.compile wrap."""
    return _wrappers(module)[-1]


def _wrappers(module: nn.Module) -> list[nn.Module]:
    """Return the module, what it wraps, and so on; only the last one wraps nothing."""
    found = [module]
    while True:
        children = dict(module.named_children())
        if isinstance(module, DistributedDataParallel):
            module = module.module
        elif "_orig_mod" in children:  # torch.compile's wrapper; its type is slow to import
            module = children["_orig_mod"]
        else:
            return found
        found.append(module)


def _is_compiled(module: nn.Module) -> bool:
    in_place = module._compiled_call_impl is not None  # by module.compile()
    return in_place or "_orig_mod" in dict(module.named_children())


def warn_of_no_forward(name: str) -> None:
    """Warn that a probe saw nothing, where torch.compile may be the reason."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]["ok"]:
        warnings.warn(
            f"no forward called the probe of layer {name!r}: if its model was compiled before, "
            f"{REMEDY}",
            stacklevel=3,
        )
