"""Checks that a layer can be treated; each error says why it can't."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from orthocond.distributed import is_distributed
from orthocond.errors import UserError, unknown
from orthocond.treatments.layer.claims import check_claims
from orthocond.treatments.layer.effective import evaluation
from orthocond.treatments.layer.matrix import KINDS
from orthocond.treatments.layer.place import weight_parameters
from orthocond.treatments.protocol import Treatment

FORWARDS = ("__call__", "forward", "_conv_forward")
"""Methods that define what a layer computes; ``_conv_forward`` is that of torch's convolutions."""

WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "FSDPModule")
"""Names of torch's wrappers, whose modules are slow to import."""


def find_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return the modules with these names, by name.

    Raises:
        UserError: the model is no module or has none inside; there is no name, a name is unknown or
            listed twice, or two names belong to the same module, to the same weight, or to a module
            and one inside it.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"expected a torch.nn.Module to treat, got {type(model).__name__}")
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, nn.Module] = {}
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"expected the name of a layer, got {name!r}")
        if len(modules) == 1:
            raise UserError(
                f"the {type(model).__name__} has no layers inside: to treat the module itself, put "
                "it into a model, as in nn.Sequential(layer), and name it '0'"
            )
        if name not in modules or name == "":
            raise unknown("layer", name, [name for name in modules if name])
        if name in found:
            raise UserError(f"layer {name!r} is listed twice")
        for other, module in found.items():
            if module is modules[name]:
                raise UserError(
                    f"layers {other!r} and {name!r} are the same module: list one of them"
                )
            if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                raise UserError(f"one of the layers {other!r} and {name!r} is inside the other")
            both = {*map(id, weight_parameters(module).values())}
            if any(id(p) in both for p in weight_parameters(modules[name]).values()):
                raise UserError(f"layers {other!r} and {name!r} share their weight: list one")
        found[name] = modules[name]
    if not found:
        raise UserError("no layer is listed: name at least one of model.named_modules()")
    return found


def check_layer(model: nn.Module, name: str, module: nn.Module, parts: list[Treatment]) -> None:
    """Raise UserError if these treatments can't treat a layer.

    Neither the model nor the state of the random numbers changes.
    """
    reshaping = next((part.name for part in parts if part.acts_on == "weight"), None)
    _check_wrappers(model, name, module)
    if reshaping is not None and is_distributed():
        _check_outer_wrappers(name, module)
    _check_kind(name, module)
    _check_parameter(name, module)
    if reshaping is not None:
        _check_reshaping(model, name, module, reshaping)
    check_claims(name, module, parts)
    for part in parts:
        part.check(module)


def require_lossless(layer: nn.Module, action: str, kind: type[nn.Module]) -> None:
    """Raise UserError if another module in the layer's place would not do all that the layer does.

    Args:
        layer: the layer to be replaced.
        action: what replaces it, for messages.
        kind: the class whose forward the other module stands for.
    """
    own = any(getattr(type(layer), n, None) is not getattr(kind, n, None) for n in FORWARDS)
    if own or "forward" in vars(layer):
        raise UserError(
            f"{action} replaces the layer, and the forward of this {type(layer).__name__} is its "
            "own, which the new layer would lose: use ow-stiefel or ow-conv, which keep the layer"
        )
    if any("hooks" in name and bool(value) for name, value in vars(layer).items()):
        raise UserError(
            f"{action} replaces the layer, and this {type(layer).__name__} has hooks, which the "
            "new layer would lose: remove them, or close the probe, and attach them again after it"
        )


def _check_wrappers(model: nn.Module, name: str, module: nn.Module) -> None:
    """Raise UserError if a wrapper for several processes or devices holds the layer already.

    torch.compile's wrapper is no obstacle: it compiles a changed layer again.
    """
    for wrapper in model.modules():
        kind = _wrapper_kind(type(wrapper))
        if kind is not None and any(inner is module for inner in wrapper.modules()):
            raise _wrapped(name, kind)


def _wrapper_kind(kind: type) -> str | None:
    """Return the name of the wrapper that a class is or is made from, or None."""
    names = {base.__name__ for base in kind.__mro__}
    return next((name for name in WRAPPERS if name in names), None)


def _wrapped(name: str, wrapper: str) -> UserError:
    return UserError(
        f"layer {name!r} is inside {wrapper}, which knows the untreated layer, so the "
        "processes would train different weights: treat the model before it is wrapped"
    )


def _holder(module: nn.Module) -> str | None:
    """Return the name of a live wrapper that holds a module, wherever it is, or None."""
    for thing in gc.get_objects():
        kind = type(thing)  # isinstance would run code of proxies
        wrapper = _wrapper_kind(kind) if issubclass(kind, nn.Module) else None
        if wrapper is not None and any(inner is module for inner in thing.modules()):
            return wrapper
    return None


def _check_outer_wrappers(name: str, module: nn.Module) -> None:
    """Raise UserError if a wrapper outside of the given model holds the layer: ``ddp.module``.

    Its reducer would not see the parameters and buffers that a treatment of the weight makes.
    """
    if _holder(module) is not None:
        gc.collect()  # a wrapper that is no longer used may still exist
        wrapper = _holder(module)
        if wrapper is not None:
            raise _wrapped(name, wrapper)


def _check_kind(name: str, module: nn.Module) -> None:
    """Raise UserError unless the layer's weight is one dense matrix with known axes."""
    kind = type(module).__name__
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        raise UserError(f"layer {name!r} is a {kind} without a shape yet: run one batch first")
    if callable(getattr(module, "kernel", None)):
        raise UserError(
            f"layer {name!r} is a {kind}, which is treated already: give all treatments in one "
            "call, on the plain convolution"
        )
    with evaluation(module):  # in training, reading the weight would run a power iteration
        weight = getattr(module, "weight", None)
    if callable(weight):  # in torch's quantised layers, weight is a method
        raise UserError(
            f"layer {name!r} is a quantised {kind}: treat the layer before it is quantised"
        )
    if not isinstance(weight, Tensor) or weight.dim() < 2:
        raise UserError(
            f"layer {name!r} is a {kind} without a weight matrix: "
            "treat a convolution or a linear layer"
        )
    if not isinstance(module, KINDS):
        raise UserError(
            f"layer {name!r} is a {kind}, whose weight is not known to be one matrix: allowed are "
            f"{', '.join(k.__name__ for k in KINDS)} and their subclasses"
        )
    if not weight.is_floating_point():
        raise UserError(
            f"the weight of layer {name!r} is {weight.dtype}: treatments need a weight of a real "
            "floating dtype, neither quantised nor complex"
        )
    groups = getattr(module, "groups", 1)
    if groups != 1:
        raise UserError(
            f"layer {name!r} has {groups} groups, so its weight is {groups} independent matrices, "
            "but a treatment acts on one matrix: treat a layer with groups=1"
        )
    if getattr(module, "sparse", False) or getattr(module, "max_norm", None) is not None:
        raise UserError(
            f"layer {name!r} is an {kind} with sparse gradients or a max_norm: treatments need "
            "a dense gradient, and a weight that only the optimizer changes"
        )
    plain = "weight" in module._parameters or not weight_parameters(module)
    # A computed weight has a graph only during the forward pass, so requires_grad says nothing.
    if plain and not weight.requires_grad:
        raise UserError(f"the weight of layer {name!r} is frozen: there is nothing to treat")


def _check_parameter(name: str, module: nn.Module) -> None:
    """Raise UserError unless the weight depends on exactly one parameter of the layer."""
    trained = weight_parameters(module)
    if len(trained) > 1:
        raise UserError(
            f"the weight of layer {name!r} is made of {' and '.join(trained)}: "
            "a treatment acts on one parameter"
        )
    if not trained:
        raise UserError(
            f"the weight of layer {name!r} is computed elsewhere: "
            "a treatment acts on a parameter of the layer itself"
        )


def _check_reshaping(model: nn.Module, name: str, module: nn.Module, treatment: str) -> None:
    """Raise UserError unless the weight is the layer's own plain parameter."""
    if parametrize.is_parametrized(module, "weight") or "weight" not in module._parameters:
        raise UserError(
            f"the weight of layer {name!r} is parametrized already: {treatment} would be a second "
            "parametrization, and a layer can have one"
        )
    mine = {id(p) for p in module.parameters()}
    for prefix, other in model.named_modules():
        for leaf, parameter in other.named_parameters(recurse=False):
            if other is not module and id(parameter) in mine:
                raise UserError(
                    f"a parameter of layer {name!r} is {f'{prefix}.{leaf}'.lstrip('.')!r}, too: "
                    f"{treatment} would separate the two; untie them, or use a treatment of the "
                    "gradient, the step or the loss"
                )
    if isinstance(module, nn.Embedding):
        raise UserError(
            f"layer {name!r} is an Embedding, which looks up rows and multiplies by no matrix: "
            f"{treatment} needs a convolution or a linear layer"
        )
