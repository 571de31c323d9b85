"""Folding: a copy of a network for inference, in which whitening is part of the layers before it.

Note [Folded whitening]
    In evaluation whitening is the affine map y = A (x - mu) + beta with A = diag(gamma) F. After a
    convolution or linear layer x = W * u + b it gives y = (A W) * u + (A (b - mu) + beta): again
    such a layer, with the same stride, padding, padding mode and dilation, because the map follows
    the layer and acts on each position alone. The products are in float64. With grouped
    convolutions this holds if each whitened group of channels lies within one group of the
    convolution; otherwise (a depthwise convolution, say) the groups would be mixed.
    Without such a layer the map is a 1x1 convolution with the weight A and the bias beta - A mu,
    computed with the rounded A, so that the rounding of A multiplies x - mu only.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthocond.errors import DecompositionError, UserError
from orthocond.host import double
from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm
from orthocond.layers.inference.computed import keep_weights
from orthocond.layers.inference.preceding import KINDS, computes_as, layers_before, traces
from orthocond.layers.inference.symbolic import one_node
from orthocond.layers.recalibration import unwrapped
from orthocond.layers.skew import SkewOrthogonalConv2d

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Folded(nn.Module):
    """What is left where a whitening layer was merged into the layer before it.

    It returns its input. It checks the number of dimensions, because a linear layer that is applied
    to sequences (B, C, L) does not have its output features in dimension 1, where whitening has its
    channels.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != self.dimensions:
            raise UserError(
                f"whitening was merged into a layer with outputs of {self.dimensions} dimensions, "
                f"got {tuple(input.shape)}: give inputs of another shape to the model before fold"
            )
        return input

    def extra_repr(self) -> str:
        return f"dimensions={self.dimensions}"


class _Pointwise1d(nn.Conv1d):
    """A 1x1 convolution that takes vectors (B, C), too."""

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 3:
            return super().forward(input)
        return super().forward(input.unsqueeze(-1)).squeeze(-1)


def _map_of(name: str, norm: DecorrelatedBatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (groups, d, d), mu (C,) and beta (C,) of a whitening layer, in float64."""
    F = norm.root_of_running()
    if not F.isfinite().all():
        raise DecompositionError(
            f"the running covariance of {name!r} holds NaN or Inf, or is singular and eps is 0: "
            "train or recalibrate the model before fold"
        )
    mean = double(norm.running_mean)
    if not norm.affine:
        return F, mean, torch.zeros_like(mean)
    return double(norm.weight).view(*F.shape[:2], 1) * F, mean, double(norm.bias)


def _apply(A: Tensor, W: Tensor) -> Tensor:
    """Return A W for W (C, ...), group by group."""
    return (A @ W.reshape(*A.shape[:2], -1)).reshape(W.shape)


def _merge(layer: nn.Module, A: Tensor, mean: Tensor, bias: Tensor) -> nn.Module:
    """Return a copy of a convolution or linear layer that whitens its output."""
    new = copy.copy(layer)
    new._parameters = dict(layer._parameters)  # the layer itself may be in use elsewhere
    old = layer.get_parameter("weight")
    before = 0 if layer.bias is None else double(layer.get_parameter("bias"))
    b = _apply(A, before - mean) + bias
    trains = old.requires_grad
    new.weight = nn.Parameter(_apply(A, double(old)).to(old), trains)
    new.bias = nn.Parameter(b.to(old), trains)
    return new


def _pointwise(norm: DecorrelatedBatchNorm, A: Tensor, mean: Tensor, bias: Tensor) -> nn.Module:
    """Return the 1x1 convolution that does what a whitening layer does in evaluation."""
    C = norm.num_features
    kind = _Pointwise1d if norm.spatial == 1 else CONVOLUTIONS[norm.spatial]
    with torch.device("meta"):
        new = kind(C, C, 1, groups=norm.groups)
    rounded = A.to(norm.running_matrix)
    trains = norm.affine and norm.weight.requires_grad
    weight = rounded.reshape(new.weight.shape)  # (C, d, 1, ...)
    new.weight = nn.Parameter(weight, trains)
    new.bias = nn.Parameter((bias - _apply(double(rounded), mean)).to(rounded), trains)
    return _with_hooks_of(norm, new)


def _with_hooks_of(old: nn.Module, new: nn.Module) -> nn.Module:
    """Return the new module with the forward hooks of the old, which see what they saw before."""
    vars(new).update({name: v for name, v in vars(old).items() if name.startswith("_forward_")})
    return new


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module into the place of another, under all its names, and return the model."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return new if model is old else model


def _remove_parametrizations(module: nn.Module) -> None:
    """Make the present values of parametrized tensors plain parameters or buffers.

    torch's ``remove_parametrizations`` changes the class of the module, which a copy shares with
    the module that it was copied from, and writes into the original tensor, which may be tied.
    """
    kept = {}
    for name, parts in module.get_submodule("parametrizations").named_children():
        trained = next(parts.parameters(recurse=False), None)
        value = getattr(module, name).detach().clone()
        kept[name] = value if trained is None else nn.Parameter(value, trained.requires_grad)
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in kept.items():
        if isinstance(value, nn.Parameter):
            module.register_parameter(name, value)
        else:
            module.register_buffer(name, value)


def _with_plain_layers(model: nn.Module) -> nn.Module:
    """Make skew, parametrized and compiled layers of a model in evaluation mode plain ones."""
    for module in list(model.modules()):
        model = _replace(model, module, unwrapped(module))
    for module in list(model.modules()):
        if isinstance(module, DecorrelatedBatchNorm | SkewOrthogonalConv2d):
            keep_weights(module)
        if parametrize.is_parametrized(module):
            _remove_parametrizations(module)
        if (
            isinstance(module, SkewOrthogonalConv2d)
            and computes_as(module, SkewOrthogonalConv2d)
            and not (module.mode == "series" and module.kernel_size > 1)
        ):
            model = _replace(model, module, _with_hooks_of(module, module.to_conv2d()))
    return model


def _copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode, with plain layers.

    Raises:
        UserError: a forward was replaced on the object, by a function that a copy would share.
    """
    for name, module in model.named_modules():
        forward = vars(module).get("forward")
        own = unwrapped(module) is not module or getattr(forward, "__self__", None) is module
        if forward is not None and not own:
            raise UserError(
                f"the forward of {name or 'the model'!r} was replaced on the object, as accelerate "
                "does, and a copy would call the original: pass the model without it, as in "
                "accelerator.unwrap_model(model, keep_fp32_wrapper=False)"
            )
    return _with_plain_layers(copy.deepcopy(model).eval())


def _folded(model: nn.Module, merge: bool) -> nn.Module | None:
    """Return a folded copy, or None if layers were merged that the model also holds elsewhere."""
    model = _copy(model)
    found = traces(model) if merge else []
    pairs = [layers_before(model, graph, read) for graph, read in found]
    half = any(p.dtype.itemsize < 4 for p in model.parameters())
    merged = False
    for name, norm in list(model.named_modules()):
        if not isinstance(norm, DecorrelatedBatchNorm) or not norm.track_running_stats:
            continue
        if not computes_as(norm, DecorrelatedBatchNorm):
            continue
        layers = {id(pair.get(norm)): pair.get(norm) for pair in pairs}
        layer = next(iter(layers.values())) if len(layers) == 1 else None
        if layer is not None:
            model = _replace(model, layer, _merge(layer, *_map_of(name, norm)))
            model = _replace(model, norm, Folded(KINDS[type(layer)]))
            merged = True
        elif not half:
            model = _replace(model, norm, _pointwise(norm, *_map_of(name, norm)))
    return None if merged and not traces(model) else model.eval()


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Return a copy of a model for inference, with whitening merged into the layer before it.

    Choose it when training is over: whitening then costs little or nothing, and a runtime without
    eigendecomposition can compute it.

    A whitening layer (``DecorrelatedBatchNorm1d`` to ``3d``) whose input is the output of a
    convolution or linear layer, and the only use of it, is merged into that layer. Stride, padding
    and groups stay; a bias is added. Any other whitening layer becomes a 1x1 convolution, in
    particular after a layer that is used twice or has hooks, after a grouped convolution whose
    groups it mixes, and in a model that ``torch.fx`` can't trace. ``SkewOrthogonalConv2d`` and
    layers with parametrizations (of this library or of torch) become plain layers with their
    evaluation weights. Pooling stays, and so does a subclass with a forward of its own.

    Only calls of the copy equal those of the model. If other code uses the output of the layer
    before whitening, it gets the whitened output: another method of the model, or a forward that
    leaves whitening out after an attribute was changed. Set such attributes before ``fold``.

    The copy is in evaluation mode, whatever mode the model is in, and uses the running statistics.
    Its outputs equal those of ``model.eval()``, in float32 to about 1e-5. In half precision the
    merged weights are rounded, as all weights are. There a layer that can't be merged stays, as a
    rounded 1x1 convolution would be too inexact. A whitening layer without running statistics and a
    skew convolution in mode ``series`` stay, too: neither is a fixed convolution. Fold before
    ``torch.compile``, ``torch.export`` and ``torch.onnx.export``. The pattern is that of
    ``torch.nn.utils.fusion``.

    Args:
        model: any module, which is not changed. Wrappers (DistributedDataParallel, DataParallel,
            AveragedModel, the module that torch.compile returns) are left out of the copy.

    Returns:
        The copy, of the same class as the model without its wrappers.

    Raises:
        UserError: model is no module, is on the meta device, or has a forward that was replaced on
            the object.
        DecompositionError: a running covariance holds NaN or Inf, or is singular and eps is 0.

    Example:
        >>> conv = torch.nn.Conv2d(3, 8, 3, stride=2, bias=False)
        >>> model = torch.nn.Sequential(conv, oc.DecorrelatedBatchNorm2d(8), torch.nn.ReLU())
        >>> x = torch.randn(16, 3, 9, 9)
        >>> _ = model(x)  # a step of training sets the running statistics
        >>> folded = oc.fold(model)
        >>> folded
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2))
          (1): Folded(dimensions=4)
          (2): ReLU()
        )
        >>> torch.allclose(folded(x), model.eval()(x), atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"expected a torch.nn.Module to fold, got {type(model).__name__}")
    model = unwrapped(model)
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise UserError("the model has tensors on the meta device: load its weights before fold")
    folded = _folded(model, merge=True)
    return _folded(model, merge=False) if folded is None else folded  # type: ignore[return-value]
