"""Population statistics in place of moving averages.

Running statistics average covariances of weights that have moved on since. A small rotation of the
eigenvectors leaks the largest eigenvalue into directions that whitening amplifies by
1 / sqrt(l_min + eps), so at a high learning rate a whitening layer can be far worse in evaluation
than in training, with the same weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orthocond.errors import DecompositionError, UserError, unknown
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.moments import Moments, is_distributed, moments, no_moments

Batch = Tensor | Sequence[Tensor]
Norm = DecorrelatedBatchNorm2d | nn.BatchNorm2d | nn.SyncBatchNorm


class _Reached(Exception):
    """The layer has its input: the rest of the model need not run."""


def _images(batches: Iterable[Batch], device: torch.device) -> Iterator[Tensor]:
    for batch in batches:
        yield (batch if isinstance(batch, Tensor) else batch[0]).to(device)


def _targets(model: nn.Module, names: Sequence[str] | None) -> dict[str, Norm]:
    modules = dict(model.named_modules())
    if names is None:
        found: dict[str, Norm] = {
            name: module
            for name, module in modules.items()
            if isinstance(module, DecorrelatedBatchNorm2d) and module.track_running_stats
        }
        if not found:
            raise UserError(
                "the model has no whitening layer with running statistics; "
                "name the batch norms to recalibrate, as in layers=['bn1']"
            )
        return found
    if not names:
        raise UserError("layers is empty: leave it out for every whitening layer")
    for name in names:
        if name not in modules:
            raise unknown("layer", name, modules)
        module = modules[name]
        if not isinstance(module, Norm) or not module.track_running_stats:
            raise UserError(
                f"layer {name!r} is a {type(module).__name__} without running statistics over "
                "pixels: allowed are DecorrelatedBatchNorm2d, BatchNorm2d and SyncBatchNorm that "
                "track them"
            )
    return {name: modules[name] for name in names}


def _in_forward_order(model: nn.Module, targets: dict[str, Norm], images: Tensor) -> list[str]:
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in targets.items()
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


def _input_moments(model: nn.Module, layer: Norm, batches: Iterable[Tensor]) -> Moments:
    """Moments of what reaches the layer, over all batches of all processes."""
    groups = layer.groups if isinstance(layer, DecorrelatedBatchNorm2d) else 1
    total = no_moments(layer.num_features, groups, next(layer.buffers()).device)

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        x = inputs[0]
        total = total.plus(moments(x if x.dtype == torch.float64 else x.float(), groups))
        raise _Reached

    hook = layer.register_forward_pre_hook(take)
    try:
        for images in batches:
            with contextlib.suppress(_Reached):
                model(images)
    finally:
        hook.remove()
    return total.reduced() if is_distributed() else total


def _set(name: str, layer: Norm, population: Moments) -> None:
    n = int(population.n)
    if n < 2:
        raise UserError(f"layer {name!r} was reached by {n} pixels: give at least one batch to it")
    mean, covariance = population.mean(), population.covariance() * (n / (n - 1))
    if not covariance.isfinite().all():
        raise DecompositionError(
            f"the features before {name!r} hold NaN or Inf; its statistics are left as they were"
        )
    if isinstance(layer, DecorrelatedBatchNorm2d):
        layer.set_running_stats(mean, covariance)
    else:
        buffers = dict(layer.named_buffers())
        buffers["running_mean"].copy_(mean)
        buffers["running_var"].copy_(covariance[0].diagonal())


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags.items():
            module.training = training


def recalibrate(
    model: nn.Module, batches: Iterable[Batch], layers: Sequence[str] | None = None
) -> None:
    """Set running statistics to the exact ones of the population in batches.

    The model runs in evaluation mode, so that every other layer does what it does in evaluation,
    and only up to the layer in question. Several layers are set one after the other in forward
    order, each behind those already set. The training flags of all modules are restored.

    Args:
        model: on any device; a DistributedDataParallel wrapper is looked through.
        batches: of images (B, ...), or of tuples that start with them, moved to the model's device.
            With several layers they are gone through once for each and once more for the order (an
            iterator is then held in memory). Under torch.distributed each process brings its own
            share, and the moments are those of all of them.
        layers: names of DecorrelatedBatchNorm2d, BatchNorm2d or SyncBatchNorm layers; None for
            every DecorrelatedBatchNorm2d.

    Raises:
        UserError: no such layer, an empty list of them, none that whitens, one without running
            statistics, or one that no batch reaches.
        DecompositionError: the features hold NaN or Inf.

    Example:
        >>> model = torch.nn.Sequential(oc.DecorrelatedBatchNorm2d(2))
        >>> oc.recalibrate(model, [torch.full((1, 2, 1, 2), 3.0), torch.full((3, 2, 1, 2), 7.0)])
        >>> model[0].running_mean.tolist()
        [6.0, 6.0]
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    targets = _targets(model, layers)
    device = next(next(iter(targets.values())).buffers()).device
    names = list(targets)
    with _evaluating(model):
        if len(targets) > 1:
            batches = list(batches) if isinstance(batches, Iterator) else batches
            first = next(_images(batches, device), None)
            if first is None:
                raise UserError("there is no batch to recalibrate from")
            names = _in_forward_order(model, targets, first)
            missed = ", ".join(repr(name) for name in targets if name not in names)
            if missed:
                raise UserError(f"the model's forward does not reach {missed}")
        for name in names:
            layer = targets[name]
            _set(name, layer, _input_moments(model, layer, _images(batches, device)))
