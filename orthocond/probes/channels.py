"""Where the channels of a layer's features are: by its type, or by what the caller says.

Note [Never guess]
    Convolutions and batch norms have their channels at dimension 1, nn.Linear and nn.LayerNorm in
    the last one. A subclass of the latter with a forward of its own may permute first, as the
    LayerNorm2d of torchvision's ConvNeXt does, and a container, an activation or an attention block
    takes either layout. A covariance over the wrong dimension has plausible numbers of another
    thing, so such a layer is refused unless the caller says where its channels are.
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
    DecorrelatedBatchNorm2d,
    GlobalCovariancePool2d,
    SkewOrthogonalConv2d,
)

SECOND: tuple[type[nn.Module], ...] = (
    *(getattr(m, name) for m in (conv, batchnorm, instancenorm, pooling) for name in m.__all__),
    nn.GroupNorm,
    nn.LocalResponseNorm,
    CovarianceRoot,
    DecorrelatedBatchNorm2d,
    GlobalCovariancePool2d,
    SkewOrthogonalConv2d,
)
"""Layers, and subclasses of them, with their channels at dimension 1: (B, C, ...)."""

LAST: tuple[type[nn.Module], ...] = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
"""Layers with their channels in the last dimension, and subclasses that keep their forward."""

BY_NAME = {
    "torchvision.models.convnext.LayerNorm2d": 1,
    "torchvision.ops.misc.FrozenBatchNorm2d": 1,
    "timm.layers.norm.LayerNorm": -1,
    "timm.layers.norm.LayerNormFp32": -1,
    "timm.layers.norm.LayerNorm2d": 1,
    "timm.layers.norm.LayerNorm2dFp32": 1,
}
"""Layers of other packages, which are not imported for this. The two LayerNorm2d permute inside."""

SIZES: tuple[tuple[type[nn.Module], str, str], ...] = (
    *((getattr(conv, name), "in_channels", "out_channels") for name in conv.__all__),
    *((c, "num_features", "num_features") for c in (batchnorm._NormBase, DecorrelatedBatchNorm2d)),
    (SkewOrthogonalConv2d, "in_channels", "out_channels"),
    (nn.GroupNorm, "num_channels", "num_channels"),
    (nn.Linear, "in_features", "out_features"),
    (nn.Embedding, "", "embedding_dim"),
)
"""Layers that know their number of channels, and the attribute for that of the input and output."""

SPATIAL = re.compile(r"([123])d$")


def check_channels(layer: nn.Module, channel_dim: int | None) -> None:
    """Raise a UserError where neither the layer's type nor the caller says where channels are."""
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
        values: its inputs or outputs.
        side: ``input`` or ``output``: which of them they are.
        channel_dim: the dimension of the channels; None to take it from the layer's type.

    Raises:
        UserError: no floating-point tensor (B, d, ...); the type does not tell the dimension; it is
            out of range; it does not have the layer's number of channels; an input without a
            batch dimension.
    """
    name = type(layer).__name__
    x = next((v for v in values if isinstance(v, Tensor)), None)
    if x is None or x.dim() < 2 or not x.is_floating_point():
        found = "no tensor" if x is None else f"{tuple(x.shape)} of {x.dtype}"
        raise UserError(
            f"the probed {name} has {found}: allowed are floating-point features (B, d, ...)"
        )
    shape = tuple(x.shape)
    if channel_dim is None:
        channel_dim = _by_type(layer)
        if _is_unbatched(layer, x.dim()):
            raise UserError(
                f"the probed {name} has {shape}, without a batch: pass x.unsqueeze(0) to the model"
            )
    if not -x.dim() < channel_dim < x.dim():
        n = x.dim() - 1
        raise UserError(
            f"channel_dim is {channel_dim}, and the probed {name} has {shape}: allowed are 1 to "
            f"{n} or -1 to -{n} (dimension 0 is the batch)"
        )
    expected = _channels(layer, side)
    if expected is not None and x.shape[channel_dim] != expected:
        raise UserError(
            f"the probed {name} has {expected} channels, and dimension {channel_dim} of its {side} "
            f"{shape} has {x.shape[channel_dim]}: pass the channel_dim= that has {expected}"
        )
    x = x.movedim(channel_dim, 1)
    return x.unsqueeze(-1) if x.dim() == 2 else x.flatten(2)


def _by_type(layer: nn.Module) -> int:
    """Return the dimension of the channels, or raise where the type does not tell."""
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
    """Whether features are (C, ...) of a layer that also takes (B, C, ...)."""
    if not isinstance(layer, SECOND) or isinstance(layer, nn.BatchNorm1d):  # it takes (B, C)
        return False
    names = (kind.__name__ for kind in type(layer).__mro__ if kind in SECOND)
    spatial = next((int(m[1]) for m in map(SPATIAL.search, names) if m), None)
    return spatial is not None and dimensions == spatial + 1


def _channels(layer: nn.Module, side: str) -> int | None:
    """Return the number of channels of a layer's input or output, where the layer knows it."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) == 1:
        return layer.normalized_shape[0]
    for kind, of_input, of_output in SIZES:
        if isinstance(layer, kind):
            size = getattr(layer, of_input if side == "input" else of_output, None)
            return size if isinstance(size, int) else None
    return None
