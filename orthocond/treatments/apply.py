"""``treat``: apply treatments to one or several layers of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args, overload

from torch import nn

from orthocond.errors import UserError, unknown
from orthocond.treatments.layer.checks import check_layer, find_layers
from orthocond.treatments.layer.place import Place
from orthocond.treatments.protocol import Options
from orthocond.treatments.registry import TREATMENTS, parse_treatments
from orthocond.treatments.several import TreatedLayers
from orthocond.treatments.step.hooks import Target
from orthocond.treatments.treated import Treated


@overload  # a str is also an Iterable[str], but a single name returns the handle of one layer
def treat(  # type: ignore[overload-overlap]
    model: nn.Module,
    layer: str,
    treatments: str | Iterable[str],
    *,
    ol_weight: float = ...,
    target: Target = ...,
) -> Treated: ...


@overload
def treat(
    model: nn.Module,
    layer: Iterable[str],
    treatments: str | Iterable[str],
    *,
    ol_weight: float = ...,
    target: Target = ...,
) -> TreatedLayers: ...


def treat(
    model: nn.Module,
    layer: str | Iterable[str],
    treatments: str | Iterable[str],
    *,
    ol_weight: float = 1e-4,
    target: Target = "parameter",
) -> Treated | TreatedLayers:
    """Treat one or several layers of a model in place, before the optimizer's first step.

    A layer is an ``nn.Linear``, ``nn.Conv1d`` to ``nn.Conv3d``, ``nn.ConvTranspose1d`` to
    ``nn.ConvTranspose3d``, or a subclass of one; its weight is read as the matrix (out, in k k).
    The weight of an ``nn.Embedding`` is read as (dimension, tokens). Treatments of half precision
    compute in float32 and round. A layer that is frozen later is not treated until it is trained.

    Args:
        model: any model.
        layer: name of a layer, as listed by ``model.named_modules()``, or a list of such names. A
            module that the model uses under several names is replaced under each of them.
        treatments: a sum such as 'nog+ow+olr', or a sequence of names, in any order. Without any
            name, the handle does nothing.
        ol_weight: factor of the orthogonal loss, 0 or more and finite.
        target: tensor that OLR reads when the weight is treated, too: the underlying ``parameter``,
            as in the released code, or the effective ``weight`` (Note [Two readings of OLR] in
            ``treatments/step/hooks.py``). Without a weight treatment both are the same tensor.

    Returns:
        The handle: ``bind`` the optimizer, add ``penalty()`` to the loss, read ``last``. A list of
        names gives a ``TreatedLayers``, and ``handle[name]`` is the handle of one layer.

    Raises:
        UserError: the model is left unchanged, and one of these holds.

            - The layer, treatment or target is unknown, or two treatments exclude each other.
            - The layer is inside DistributedDataParallel, DataParallel or FSDP already.
            - The list of layers is empty, or it names a layer twice.
            - The layer is of another kind, grouped, lazy, quantised, complex or sparse.
            - An earlier handle treats the gradient or the step, and this one does, or the weight.
            - The weight is frozen, made of several parameters, or computed elsewhere.
            - A treatment would reshape a weight that is parametrized already or is shared.
            - ``ow`` would lose hooks of the layer (a probe's, too) or a forward of its own.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
        >>> treated = oc.treat(model, "0", "nog+olr")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> treated.bind(optimizer)
        >>> model(torch.rand(4, 3, 8, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> round(treated.last.gradient_kappa_after, 3)
        1.0
    """
    if target not in get_args(Target):
        raise unknown("target", target, get_args(Target))
    names = parse_treatments(_joined(treatments))
    if not isinstance(layer, str | Iterable):
        raise UserError(f"expected the name of a layer or a list of names, got {layer!r}")
    found = find_layers(model, [layer] if isinstance(layer, str) else layer)
    handles = _treat_all(model, found, names, Options(ol_weight), target)
    return handles[layer] if isinstance(layer, str) else TreatedLayers(handles)


def _joined(treatments: str | Iterable[str]) -> str:
    """Return treatments, given as a sum or by their names, as a sum."""
    if isinstance(treatments, str):
        return treatments
    names = [*treatments] if isinstance(treatments, Iterable) else [treatments]
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            f"expected a sum of treatments such as 'nog+ow', or their names, got {treatments!r}"
        )
    return "+".join(names)


def _treat_all(
    model: nn.Module,
    found: dict[str, nn.Module],
    treatments: Iterable[str],
    options: Options,
    target: Target,
) -> dict[str, Treated]:
    """Return the handle of each layer; check all layers before changing the first one."""
    parts = {name: [TREATMENTS[part](options) for part in treatments] for name in found}
    for name, module in found.items():
        check_layer(model, name, module, parts[name])
    handles = {}
    for name, module in found.items():
        place = Place(model, name, module)
        for part in parts[name]:
            module = part.replace(module)
        place.put(module)
        handles[name] = Treated(place, parts[name], target)
    return handles
