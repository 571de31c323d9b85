"""Which layers of a model can be treated, and the reason where one can't."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from orthocond.errors import UserError, unknown
from orthocond.treatments.effective import evaluation
from orthocond.treatments.matrix import KINDS
from orthocond.treatments.place import weight_parameters
from orthocond.treatments.protocol import Treatment


def find_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return the modules of these names.

    Raises:
        UserError: no name or an unknown one, one twice, or two of one module, of one weight, or of
            a module and one inside it.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, nn.Module] = {}
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"a layer is given by its name, got {name!r}")
        if name not in modules or name == "":
            raise unknown("layer", name, [name for name in modules if name])
        if name in found:
            raise UserError(f"layer {name!r} is listed twice")
        for other, module in found.items():
            if module is modules[name]:
                raise UserError(f"layers {other!r} and {name!r} are one module: list one of them")
            if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                raise UserError(f"one of the layers {other!r} and {name!r} is inside the other")
            both = {*map(id, weight_parameters(module).values())}
            if any(id(p) in both for p in weight_parameters(modules[name]).values()):
                raise UserError(f"layers {other!r} and {name!r} share their weight: list one")
        found[name] = modules[name]
    if not found:
        raise UserError("no layer is listed: name one or more, as model.named_modules() has them")
    return found


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return all names of a module in a model, which may use it more than once."""
    return [n for n, m in model.named_modules(remove_duplicate=False) if m is module]


def check_layer(model: nn.Module, name: str, module: nn.Module, parts: Iterable[Treatment]) -> None:
    """Raise UserError if a layer can't be treated so; nothing is changed, nothing drawn."""
    _check_kind(name, module)
    _check_parameter(name, module)
    reshaping = next((part.name for part in parts if part.acts_on == "weight"), None)
    if reshaping is not None:
        _check_reshaping(model, name, module, reshaping)
    for part in parts:
        part.check(module)


def _check_kind(name: str, module: nn.Module) -> None:
    """Raise UserError unless the layer has one dense matrix whose axes are known."""
    kind = type(module).__name__
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        raise UserError(f"layer {name!r} is a {kind} without a shape yet: run one batch first")
    if callable(getattr(module, "kernel", None)):
        raise UserError(
            f"layer {name!r} is a {kind}, treated already: give all treatments in one call, on the "
            "plain convolution"
        )
    with evaluation(module):  # looking moves no power iteration
        weight = getattr(module, "weight", None)
    if callable(weight):  # torch's quantised layers unpack it
        raise UserError(
            f"layer {name!r} is a quantised {kind}: treat the layer that is trained, before"
        )
    if not isinstance(weight, Tensor) or weight.dim() < 2:
        raise UserError(
            f"layer {name!r} is a {kind} without a weight matrix: "
            "treat a convolution or a linear layer"
        )
    if not isinstance(module, KINDS):
        raise UserError(
            f"layer {name!r} is a {kind}, whose weight is not known to be one matrix: treat a "
            f"{', '.join(k.__name__ for k in KINDS)}, or a subclass of one"
        )
    if not weight.is_floating_point():
        raise UserError(
            f"the weight of layer {name!r} is {weight.dtype}: treatments take real floating point, "
            "and neither quantised nor complex weights"
        )
    groups = getattr(module, "groups", 1)
    if groups != 1:
        raise UserError(
            f"layer {name!r} has {groups} groups, so its weight is {groups} independent matrices, "
            "and a treatment takes one: treat a layer with groups=1"
        )
    if getattr(module, "sparse", False) or getattr(module, "max_norm", None) is not None:
        raise UserError(
            f"layer {name!r} is an {kind} with sparse gradients or a max_norm: treatments take "
            "the dense gradient of a weight that only the optimizer moves"
        )
    plain = "weight" in module._parameters or not weight_parameters(module)
    if plain and not weight.requires_grad:  # one that is computed has a graph in the forward only
        raise UserError(f"the weight of layer {name!r} is frozen: there is nothing to treat")


def _check_parameter(name: str, module: nn.Module) -> None:
    """Raise UserError unless one parameter is behind the weight."""
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
            f"the weight of layer {name!r} is parametrized already: {treatment} does not go "
            "with that, since a layer has one weight parametrization"
        )
    mine = {id(p) for p in module.parameters()}
    for prefix, other in model.named_modules():
        for leaf, parameter in other.named_parameters(recurse=False):
            if other is not module and id(parameter) in mine:
                raise UserError(
                    f"a parameter of layer {name!r} is {f'{prefix}.{leaf}'.lstrip('.')!r}, too: "
                    f"{treatment} would part the two; untie them, or use a treatment of the "
                    "gradient, the step or the loss"
                )
    if isinstance(module, nn.Embedding):
        raise UserError(
            f"layer {name!r} is an Embedding, which looks rows up and multiplies by no matrix: "
            f"{treatment} needs a convolution or a linear layer"
        )
