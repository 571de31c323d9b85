"""Channel dimension of a layer's features, from the layer's type or from the caller.

Note [Never guess]
    Convolutions and batch norms have their channels at dimension 1. nn.Linear and nn.LayerNorm have
    them at the last dimension, but a subclass with its own forward may permute them first, as the
    LayerNorm2d of torchvision's ConvNeXt does. Containers, activations and attention blocks accept
    either layout. A covariance over the wrong dimension gives plausible but wrong numbers. So such
    a layer raises an error unless the caller gives the channel dimension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

from orthocond.errors import UserError
from orthocond.layers import (
    CovarianceRoot,
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
    GlobalCovariancePool2d,
    SkewOrthogonalConv2d,
)
from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm

SECOND: tuple[type[nn.Module], ...] = (
    *(getattr(m, name) for m in (conv, batchnorm, instancenorm, pooling) for name in m.__all__),
    nn.GroupNorm,
    nn.LocalResponseNorm,
    CovarianceRoot,
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
    GlobalCovariancePool2d,
    SkewOrthogonalConv2d,
)
"""Layers with their channels at dimension 1, (B, C, ...). Subclasses are included."""

LAST: tuple[type[nn.Module], ...] = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
"""Layers with their channels at the last dimension. Subclasses with the same forward are included.
"""

BY_NAME = {
    "torchvision.models.convnext.LayerNorm2d": 1,
    "torchvision.ops.misc.FrozenBatchNorm2d": 1,
    "timm.layers.norm.LayerNorm": -1,
    "timm.layers.norm.LayerNormFp32": -1,
    "timm.layers.norm.LayerNorm2d": 1,
    "timm.layers.norm.LayerNorm2dFp32": 1,
}
"""Channel dimension of layers of other packages, by name: those packages are not imported here.

The LayerNorm2d classes permute inside their forward.
"""

SIZES: tuple[tuple[type[nn.Module], str, str], ...] = (
    *((getattr(conv, name), "in_channels", "out_channels") for name in conv.__all__),
    *((c, "num_features", "num_features") for c in (batchnorm._NormBase, DecorrelatedBatchNorm)),
    (SkewOrthogonalConv2d, "in_channels", "out_channels"),
    (nn.GroupNorm, "num_channels", "num_channels"),
    (nn.Linear, "in_features", "out_features"),
    (nn.Embedding, "", "embedding_dim"),
)
"""Layers that know their number of channels: the type, and the attributes for input and output."""

SPATIAL = re.compile(r"([123])d$")


def check_channels(layer: nn.Module, channel_dim: int | None) -> None:
    """Raise a UserError if neither the layer's type nor the caller gives the channel dimension."""
    if channel_dim is None:
        _by_type(layer)
    elif isinstance(channel_dim, bool) or not isinstance(channel_dim, Integral) or not channel_dim:
        raise UserError(
            f"channel_dim is {channel_dim!r}: allowed are 1, 2, ... or -1, -2, ... "
            "(dimension 0 is the batch)"
        )


def features(
    layer: nn.Module, values: Sequence[Any], side: str, channel_dim: int | None = None
) -> Tensor:
    """Return the first tensor among a layer's inputs or outputs as samples (B, d, N).

    Args:
        layer: the layer.
        values: the layer's inputs or outputs.
        side: ``input`` if the values are inputs, ``output`` if they are outputs.
        channel_dim: the channel dimension; None to derive it from the layer's type.

    Raises:
        UserError: the values hold no floating-point tensor (B, d, ...) or one without a batch
            dimension; the channel dimension is unknown for the type or out of range; or its size is
            not the layer's number of channels.
    """
    name = type(layer).__name__
    x = next((v for v in values if isinstance(v, Tensor)), None)
    if x is None or x.dim() < 2 or not x.is_floating_point():
        found = "no tensor" if x is None else f"{tuple(x.shape)} of {x.dtype}"
        raise UserError(
            f"the {side} of the probed {name} is {found}: "
            "allowed are floating-point features (B, d, ...)"
        )
    shape = tuple(x.shape)
    if channel_dim is None:
        channel_dim = _by_type(layer)
        if _is_unbatched(layer, x.dim()):
            raise UserError(
                f"the {side} of the probed {name} has shape {shape}, without a batch: "
                "pass x.unsqueeze(0) to the model"
            )
    if not -x.dim() < channel_dim < x.dim():
        n = x.dim() - 1
        raise UserError(
            f"channel_dim is {channel_dim}, and the {side} of the probed {name} has shape {shape}: "
            f"allowed are 1 to {n} or -1 to -{n} (dimension 0 is the batch)"
        )
    expected = _channels(layer, side)
    if expected is not None and x.shape[channel_dim] != expected:
        raise UserError(
            f"the probed {name} has {expected} channels, and dimension {channel_dim} of its {side} "
            f"{shape} has {x.shape[channel_dim]}: pass the channel_dim= of the dimension with "
            f"{expected}"
        )
    x = x.movedim(channel_dim, 1)
    return x.unsqueeze(-1) if x.dim() == 2 else x.flatten(2)


def _by_type(layer: nn.Module) -> int:
    """Return the channel dimension, or raise a UserError if the layer's type does not define it."""
    for kind in type(layer).__mro__:  # nearest first: parametrized classes are subclasses
        known = BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None and type(layer).forward is kind.forward:  # type: ignore[attr-defined]
            return known
    if isinstance(layer, SECOND):
        return 1
    keeps_forward = any(
        isinstance(layer, kind) and type(layer).forward is kind.forward for kind in LAST
    )
    if keeps_forward and len(getattr(layer, "normalized_shape", (0,))) == 1:
        return -1
    raise UserError(
        f"the type {type(layer).__name__} does not tell where its channels are: pass channel_dim= "
        "(--channel-dim on the command line), 1 for features (B, C, ...) and -1 for (B, ..., C)"
    )


def _is_unbatched(layer: nn.Module, dimensions: int) -> bool:
    """Return whether features are unbatched, (C, ...), for a layer that also takes (B, C, ...)."""
    takes_vectors = isinstance(layer, nn.BatchNorm1d | DecorrelatedBatchNorm1d)  # (B, C)
    if not isinstance(layer, SECOND) or takes_vectors:
        return False
    names = (kind.__name__ for kind in type(layer).__mro__ if kind in SECOND)
    spatial = next((int(m[1]) for m in map(SPATIAL.search, names) if m), None)
    return spatial is not None and dimensions == spatial + 1


def _channels(layer: nn.Module, side: str) -> int | None:
    """Return the number of channels of a layer's input or output, or None if it is unknown."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) == 1:
        return layer.normalized_shape[0]
    for kind, of_input, of_output in SIZES:
        if isinstance(layer, kind):
            size = getattr(layer, of_input if side == "input" else of_output, None)
            return size if isinstance(size, int) else None
    return None
