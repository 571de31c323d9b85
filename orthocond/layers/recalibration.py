"""Recalibration: replace moving averages by the exact statistics of given batches.

Running statistics average covariances that belong to earlier weights. A small rotation of the
eigenvectors leaks the largest eigenvalue into directions that whitening amplifies by
1 / sqrt(l_min + eps). So at a high learning rate a whitening layer can be far worse in evaluation
than in training, with the same weights.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from orthocond.errors import DecompositionError, UserError, require_floating, unknown
from orthocond.host import full_precision
from orthocond.layers.batch_norms import spatial_of
from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm
from orthocond.layers.moments import Moments, moments, no_moments
from orthocond.layers.shapes import SAMPLES, as_images, fits, shapes

Forward = Callable[[nn.Module, Any], object]
Run = Callable[[Any], object]  # runs the model on one batch
Norm = DecorrelatedBatchNorm | nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


class _Reached(Exception):
    """Exception that ends a forward pass once the layer has received its input."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside all its wrappers, which can be nested."""
    return wrappers(model)[-1]


def wrappers(model: nn.Module) -> list[nn.Module]:
    """Return the model and all modules nested in it as wrappers; only the last wraps nothing."""
    compiled = model._modules.get("_orig_mod")  # set in torch.compile's OptimizedModule
    if compiled is not None:
        return [model, *wrappers(compiled)]
    if isinstance(model, AveragedModel | DataParallel | DistributedDataParallel):
        return [model, *wrappers(model.module)]
    return [model]


def _forward(model: nn.Module, batch: Any) -> None:
    """Run the model on a batch: a tensor, a sequence that starts with one, or a dict.

    Raises:
        UserError: the batch is of another kind.
    """
    is_sequence = isinstance(batch, tuple | list)
    first = batch[0] if is_sequence and batch else batch
    if isinstance(first, Tensor):
        model(first)
    elif isinstance(first, Mapping) and all(isinstance(key, str) for key in first):
        model(**first)
    else:
        starts = f" that starts with {type(first).__name__}" if is_sequence and batch else ""
        raise UserError(
            "expected a batch that is a tensor, a tuple or list that starts with the input, or a "
            f"dict of keyword arguments, got {type(batch).__name__}{starts}: pass forward=, a "
            "function of the model and the batch that runs the model"
        )


def _moved(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    from accelerate.utils import send_to_device  # slow to import

    for batch in batches:
        yield send_to_device(batch, device)


def _targets(model: nn.Module, wrapped: nn.Module, names: Sequence[str] | None) -> dict[str, Norm]:
    if isinstance(names, str):
        raise UserError(f"layers is the string {names!r}: pass a list, as in [{names!r}]")
    if names is None:
        found: dict[str, Norm] = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, DecorrelatedBatchNorm) and module.track_running_stats
        }
        if not found:
            raise UserError(
                "the model has no whitening layer with running statistics; "
                "name the batch norms to recalibrate, as in layers=['bn1']"
            )
        return found
    if not names:
        raise UserError("layers is empty: leave it out for every whitening layer")
    # Names may include the wrapper's prefix.
    modules = dict(chain(*(m.named_modules(remove_duplicate=False) for m in (wrapped, model))))
    for name in names:
        if name not in modules:
            raise unknown("layer", name, filter(None, modules))
        module = modules[name]
        if not isinstance(module, Norm) or not module.track_running_stats:
            raise UserError(
                f"layer {name!r} is a {type(module).__name__} without running statistics: allowed "
                "are DecorrelatedBatchNorm1d to 3d, BatchNorm1d to 3d and SyncBatchNorm that track "
                "them"
            )
    by_layer = {modules[name]: name for name in names}  # a layer may have several names
    return {name: layer for layer, name in by_layer.items()}


def _in_forward_order(run: Run, targets: dict[str, Norm], batches: Iterator[Any]) -> list[str]:
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in targets.items()
    ]
    try:
        for batch in batches:
            run(batch)
            break
        else:
            raise UserError("there is no batch to recalibrate from: pass at least one")
    finally:
        for hook in hooks:
            hook.remove()
    missed = ", ".join(repr(name) for name in targets if name not in order)
    if missed:
        raise UserError(f"the model's forward does not reach {missed}")
    return list(dict.fromkeys(order))


def _input_moments(run: Run, name: str, layer: Norm, batches: Iterator[Any]) -> Moments:
    """Return the moments of the layer's input over all batches of all processes.

    The first batch runs through the whole model, to count the calls of the layer. With a single
    one, the other passes end at the layer.
    """
    groups = layer.groups if isinstance(layer, DecorrelatedBatchNorm) else 1
    total = no_moments(layer.num_features, groups, next(layer.buffers()).device)
    calls = most = 0  # of the layer: in this forward pass, and in any so far

    def take(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        nonlocal total, calls
        x = next(iter((*args, *named.values())))
        require_floating(x, f"an input of layer {name!r}")
        _require_shape(x, name, layer)
        x = as_images(x if x.dtype == torch.float64 else x.float())
        with full_precision(x):  # the model, or the caller, may run it under autocast
            total = total.plus(moments(x, groups))
        calls += 1
        if most == 1:
            raise _Reached

    hook = layer.register_forward_pre_hook(take, with_kwargs=True)
    try:
        for batch in batches:
            calls = 0
            with contextlib.suppress(_Reached):
                run(batch)
            most = max(most, calls)
    finally:
        hook.remove()
    return total.reduced()


def _require_shape(x: Tensor, name: str, layer: Norm) -> None:
    channels, spatial = layer.num_features, _spatial(layer)
    if spatial is None:  # torch's SyncBatchNorm takes any number of positions
        fitting, expected = x.dim() >= 2 and x.shape[1] == channels, f"(B, {channels}, ...)"
    else:
        fitting, expected = fits(x, spatial, channels), shapes(spatial, channels)
    if not fitting:
        raise UserError(
            f"layer {name!r} expects an input of shape {expected}, got {tuple(x.shape)}"
        )


def _spatial(layer: Norm) -> int | None:
    """Return 1, 2 or 3 as in the name of the layer's class, or None for a SyncBatchNorm."""
    return layer.spatial if isinstance(layer, DecorrelatedBatchNorm) else spatial_of(layer)


def _recalibrate_layer(run: Run, name: str, layer: Norm, batches: Iterator[Any]) -> None:
    """Set the running statistics of one layer to those of its input over the batches."""
    population = _input_moments(run, name, layer, batches)
    n = int(population.n)
    if n < 2:
        raise UserError(
            f"layer {name!r} received {n} {SAMPLES[_spatial(layer) or 2]}, and needs at least 2: "
            "pass at least one batch"
        )
    mean, covariance = population.mean(), population.covariance() * (n / (n - 1))
    if not covariance.isfinite().all():
        raise DecompositionError(
            f"the features before {name!r} hold NaN or Inf: its running statistics are unchanged"
        )
    if isinstance(layer, DecorrelatedBatchNorm):
        layer.set_running_stats(mean, covariance)
    else:
        buffers = dict(layer.named_buffers())
        buffers["running_mean"].copy_(mean)
        buffers["running_var"].copy_(covariance[0].diagonal())


def _restore(module: nn.Module, flags: Mapping[nn.Module, bool]) -> None:
    """Give all modules inside of a module their own training flags, by calls of ``train``.

    A module may do more than set its flag there, as a LoRA layer that merges its weights does.
    """
    flag, inside = flags[module], list(module.modules())
    if all(m.training == flags[m] for m in inside):
        return
    if all(flags[m] == flag for m in inside):
        module.train(flag)
        return
    if type(module).train is not nn.Module.train:
        module.train(flag)
    module.training = flag
    for child in module.children():
        _restore(child, flags)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    model.eval()
    compiled = "torch._dynamo" in sys.modules  # don't import it here: that takes seconds
    # Compiled code ignores new hooks, and an exception can't end it early.
    eager = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
    try:
        with torch.no_grad(), eager:
            yield
    finally:
        _restore(model, flags)


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
    forward: Forward | None = None,
) -> None:
    """Replace the running statistics of layers by the exact statistics of the given batches.

    The model runs in evaluation mode. After the first batch each pass ends at the layer, unless
    the model calls it more than once: then all calls count. Several layers are processed in forward
    order, so that each sees the new statistics of those before it. Training flags are restored.

    Args:
        model: a model on any device. It may be inside AveragedModel, DistributedDataParallel,
            DataParallel or the module that torch.compile returns, whose code runs uncompiled here.
        batches: each is moved to the model's device. It is the model's input tensor, a tuple or
            list that starts with the input, or a dict of keyword arguments for ``model(**batch)``.
            Any other kind needs ``forward``. With several layers the batches are iterated once per
            layer and once more to find the forward order (an iterator is then held in memory).
            Under torch.distributed each process passes its own batches, and all of them count.
        layers: names of DecorrelatedBatchNorm1d to 3d, BatchNorm1d to 3d or SyncBatchNorm layers;
            None for every decorrelated one.
        forward: a function of the model without its wrappers and a batch of any kind, which runs
            the model on the batch. Its result is ignored.

    Raises:
        UserError: ``layers`` is empty or a string, names an unknown layer or one without running
            statistics, or is None for a model without whitening layer; no batch reaches a layer, or
            its input has a shape or dtype that the layer does not take; ``forward`` is missing.
        DecompositionError: the features before a layer hold NaN or Inf.

    Example:
        >>> model = torch.nn.Sequential(oc.DecorrelatedBatchNorm2d(2))
        >>> loader = [torch.full((1, 2, 1, 2), 3.0), torch.full((3, 2, 1, 2), 7.0)]
        >>> oc.recalibrate(model, loader)
        >>> model[0].running_mean.tolist()
        [6.0, 6.0]

        Averaged weights (``update_bn`` of ``torch.optim.swa_utils`` sets torch's batch norms only):

        >>> swa_model = torch.optim.swa_utils.AveragedModel(model)
        >>> swa_model.update_parameters(model)
        >>> oc.recalibrate(swa_model, loader)

        Batches of another kind, with a function that runs them:

        >>> pairs = [{"image": images, "id": i} for i, images in enumerate(loader)]
        >>> oc.recalibrate(model, pairs, forward=lambda model, batch: model(batch["image"]))
    """
    wrapped, model = model, unwrapped(model)
    targets = _targets(model, wrapped, layers)
    device = next(chain(model.parameters(), model.buffers())).device
    run = partial(forward or _forward, model)
    names = list(targets)
    with _evaluating(model):
        if len(targets) > 1:
            batches = list(batches) if isinstance(batches, Iterator) else batches
            names = _in_forward_order(run, targets, _moved(batches, device))
        for name in names:
            _recalibrate_layer(run, name, targets[name], _moved(batches, device))
