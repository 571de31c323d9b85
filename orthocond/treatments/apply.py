"""``treat``: apply treatments to one layer of a model, or to several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args, overload

from torch import nn

from orthocond.errors import UserError, unknown
from orthocond.treatments.checks import check_layer, find_layers, names_of
from orthocond.treatments.place import Place
from orthocond.treatments.protocol import Options
from orthocond.treatments.registry import TREATMENTS, parse_treatments
from orthocond.treatments.several import TreatedLayers
from orthocond.treatments.step_hooks import Target
from orthocond.treatments.treated import Treated


@overload  # a str is an Iterable[str], too, and one name gives one layer's handle
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
    """Treat a layer of a model, or several, in place; call it before the optimizer is built.

    A layer is an ``nn.Linear``, ``nn.Conv1d`` to ``nn.Conv3d``, ``nn.ConvTranspose1d`` to
    ``nn.ConvTranspose3d``, or a subclass of one; its weight is read as the matrix (out, in k k).
    The weight of an ``nn.Embedding`` is read as (dimension, tokens). Half precision is computed in
    float32 and rounded. A layer that is frozen later is left alone until it is thawed.

    Args:
        model: any model.
        layer: the name of a layer in it, as ``model.named_modules()`` has it, or a list of names. A
            module that the model uses under several names is replaced at all of them.
        treatments: such as 'nog+ow+olr', or a sequence of names; order does not matter, and an
            empty one gives a handle that does nothing.
        ol_weight: factor of the orthogonal loss.
        target: what OLR looks at under a weight treatment: the underlying ``parameter``, as the
            released code does, or the effective ``weight`` (Note [Two readings of OLR] in
            ``step_hooks.py``). Without one the two are the same.

    Returns:
        The handle: ``bind`` the optimizer, add ``penalty()`` to the loss, look at ``last``. For a
        list it is one handle for all (``TreatedLayers``), with ``handle[name]`` of each.

    Raises:
        UserError: no such layer, treatment or target, or treatments that exclude each other. A
            layer of another kind, with groups (its weight is several matrices), without a shape yet
            (lazy), quantised or complex, an embedding with sparse gradients; a weight that is
            frozen, made of several parameters, computed elsewhere; where a treatment would
            parametrize or replace it, one that is parametrized already or that another module
            holds, too. A list that is empty or names a layer twice. The model is as it was then.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
        >>> treated = oc.treat(model, "0", "nog+olr")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> treated.bind(optimizer)
        >>> model(torch.rand(4, 3, 8, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> treated.treatments, round(treated.last.gradient_kappa_after, 3)
        (('nog', 'olr'), 1.0)
    """
    if target not in get_args(Target):
        raise unknown("target", target, get_args(Target))
    names = parse_treatments(treatments if isinstance(treatments, str) else "+".join(treatments))
    if not isinstance(layer, str | Iterable):
        raise UserError(f"a layer is given by its name or a list of names, got {layer!r}")
    found = find_layers(model, [layer] if isinstance(layer, str) else layer)
    handles = _treat_all(model, found, names, Options(ol_weight), target)
    return handles[layer] if isinstance(layer, str) else TreatedLayers(handles)


def _treat_all(
    model: nn.Module,
    found: dict[str, nn.Module],
    treatments: Iterable[str],
    options: Options,
    target: Target,
) -> dict[str, Treated]:
    """Return the handle of each layer; all are checked before the first is changed."""
    parts = {name: [TREATMENTS[part](options) for part in treatments] for name in found}
    for name, module in found.items():
        check_layer(model, name, module, parts[name])
    handles = {}
    for name, module in found.items():
        place = Place(model, name, names_of(model, module), module)
        for part in parts[name]:
            module = part.replace(module)
        place.put(module)
        handles[name] = Treated(place, parts[name], target)
    return handles
