"""Search for the layer that a probe hooks, through wrappers, with a warning if it is compiled.

Note [Compiled models]
    torch.compile traces the hooks of a layer into the compiled code, and that code does not check
    for hooks attached later (torch._dynamo.config.skip_nnmodule_hook_guards). A probe attached
    before the first forward is called as Python code, at the cost of a graph break. A probe
    attached after it is never called, and no error says so.
"""

from __future__ import annotations

import sys
import warnings

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from orthocond.errors import UserError, nearest
from orthocond.layers.recalibration import unwrapped, wrappers

REMEDY = (
    "attach the probe before the first compiled forward, call torch._dynamo.reset() after "
    "attaching it, or run the original module"
)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name in the model, or in the network that the model wraps.

    Warn if the layer is inside a compiled module, because its hooks may never run.

    Raises:
        UserError: no layer has this name, or no forward calls the layer.
    """
    inner = unwrapped(model)
    names = dict(inner.named_modules(remove_duplicate=False))
    modules = names if name in names else dict(model.named_modules(remove_duplicate=False))
    if name not in modules or not name or unwrapped(modules[name]) is inner:
        raise UserError(
            f"unknown layer {name!r} of {type(inner).__name__}: allowed are the names in "
            f"model.named_modules(){nearest(name, filter(None, names))}"
        )
    layer = modules[name]
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        raise UserError(
            f"layer {name!r} is never called, because attention multiplies by its weight itself: "
            f"probe the output of {name.rpartition('.')[0]!r}, with side='output', channel_dim=-1"
        )
    parts = name.split(".")
    above = [modules[".".join(parts[:i])] for i in range(len(parts))]
    if any(map(_is_compiled, [*wrappers(model), *above])) or layer._compiled_call_impl is not None:
        warnings.warn(
            f"layer {name!r} is inside a compiled module, which may not call hooks attached after "
            f"compilation; the probe would then record nothing: {REMEDY}",
            stacklevel=3,
        )
    return layer


def _is_compiled(module: nn.Module) -> bool:
    in_place = module._compiled_call_impl is not None  # set by module.compile()
    return in_place or "_orig_mod" in dict(module.named_children())


def warn_of_no_forward(name: str) -> None:
    """Warn that no forward called a probe, if torch.compile may be the reason."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]["ok"]:
        warnings.warn(
            f"no forward called the probe of layer {name!r}: if its model was compiled before the "
            f"probe was attached, {REMEDY}",
            stacklevel=3,
        )
