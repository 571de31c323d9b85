"""Conversion: put whitening layers in the place of the batch norms of a trained network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel

from orthocond.errors import UserError, unknown
from orthocond.layers.batch_norms import require_replaceable, spatial_of
from orthocond.layers.decorrelated import (
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
)

Layers = Sequence[str] | Callable[[str, nn.Module], bool]

LAYERS = {1: DecorrelatedBatchNorm1d, 2: DecorrelatedBatchNorm2d, 3: DecorrelatedBatchNorm3d}
WITH_ACTIVATION = (
    "timm.layers.norm_act.BatchNormAct2d",
    "timm.layers.norm_act.SyncBatchNormAct",
)
"""Batch norms that apply their ``drop`` and ``act`` to the result; timm is not imported here."""


def _has_activation(bn: _BatchNorm) -> bool:
    """Return whether the forward is that of timm's batch norm with drop and activation."""
    owner = next(kind for kind in type(bn).__mro__ if "forward" in vars(kind))
    return f"{owner.__module__}.{owner.__qualname__}" in WITH_ACTIVATION


def _plain(bn: _BatchNorm) -> _BatchNorm:
    """Return a batch norm without the activation that shares all else with bn."""
    kind = nn.SyncBatchNorm if isinstance(bn, nn.SyncBatchNorm) else nn.BatchNorm2d
    plain = kind.__new__(kind)
    plain.__dict__ = bn.__dict__.copy()
    plain._modules = {}
    return plain


def _converted(bn: _BatchNorm, settings: dict[str, Any]) -> nn.Module:
    layer = LAYERS[spatial_of(bn) or 2]
    if not _has_activation(bn):
        return layer.from_batch_norm(bn, **settings)
    norm = layer.from_batch_norm(_plain(bn), **settings)
    after = [(name, getattr(bn, name)) for name in ("drop", "act") if hasattr(bn, name)]
    parts = nn.Sequential(OrderedDict([("norm", norm), *after]))
    parts.training = bn.training
    return parts


def _chosen(model: nn.Module, modules: dict[str, nn.Module], layers: Layers) -> list[str]:
    """Return the names that ``layers`` chooses among the modules of a model."""
    if isinstance(layers, str):
        raise UserError(f"layers is the string {layers!r}: pass a list, as in [{layers!r}]")
    if callable(layers):
        chosen = [n for n, m in modules.items() if isinstance(m, _BatchNorm) and layers(n, m)]
    else:
        chosen = list(layers)
    if not chosen:
        raise UserError("no batch norm is chosen: name at least one, or let the function choose it")
    for name in chosen:
        if name not in modules:
            raise unknown("layer", name, [known for known in modules if known])
        if modules[name] is model:
            raise UserError(
                "the model itself is a batch norm, which can't be replaced in place: use "
                "DecorrelatedBatchNorm2d.from_batch_norm"
            )
    return chosen


def convert_batch_norm(model: nn.Module, layers: Layers, **settings: Any) -> list[str]:
    """Replace batch norms of a network by whitening layers, in place.

    The network computes the same in evaluation, up to rounding, until it is trained. Choose it to
    whiten a network whose code or weights come from elsewhere. Start with the first batch norm: a
    layer decomposes a matrix (C, C) in each training step, which is slow for many channels without
    ``groups``. ``DecorrelatedBatchNorm2d.from_batch_norm`` describes the new layers. Their
    parameters are those of the batch norms, so an optimizer built before stays valid.

    A batch norm with several names is converted once and stays shared, whichever name is given.
    timm's BatchNormAct2d becomes an ``nn.Sequential`` of ``norm``, ``drop`` and ``act``. A
    SyncBatchNorm, which takes inputs of any dimension, becomes a DecorrelatedBatchNorm2d.

    Args:
        model: a network in any mode, before it is compiled or wrapped for several processes.
        layers: names of the batch norms, as in ``model.named_modules()``; or a function of a name
            and a batch norm, called with each one in the model, that returns whether to convert it.
        settings: ``groups``, ``solver``, ``backward``, ``steps``, ``condition`` and ``running`` of
            the new layers, as for ``DecorrelatedBatchNorm2d``.

    Returns:
        The names of the new whitening layers, for ``ConditioningProbe`` and ``recalibrate``.

    Raises:
        UserError: a name is unknown, or names no batch norm with running statistics; no batch norm
            is chosen; the model is one itself, or is inside DataParallel or
            DistributedDataParallel; a setting is unknown. The model is then unchanged.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
        >>> oc.convert_batch_norm(model, ["1"])
        ['1']
        >>> model = torch.nn.Sequential(torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(128))
        >>> oc.convert_batch_norm(model, lambda name, bn: bn.num_features <= 64)
        ['0']
    """
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise UserError(
            f"the model is inside {type(model).__name__}, which knows the old layers: convert "
            "before it is wrapped"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    new: dict[nn.Module, nn.Module] = {}
    for name in _chosen(model, modules, layers):
        bn = require_replaceable(modules[name], spatial_of(modules[name]) or 2, name)
        new[bn] = new.get(bn) or _converted(bn, settings)
    converted = []
    for name, module in modules.items():
        if module in new:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, new[module])
            converted.append(f"{name}.norm" if isinstance(new[module], nn.Sequential) else name)
    return converted
