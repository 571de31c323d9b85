"""Structural rank: the largest rank of a layer's output covariance that an architecture allows."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from orthocond.errors import UserError, require_whole


def structural_rank(layer: nn.Module, samples: int) -> int:
    """Return the largest rank that the covariance of a layer's output can have.

    It is min(d, fan-in, n - 1). For a grouped convolution min(d, fan-in) is computed per group and
    summed. The result is valid up to the next nonlinearity: a ReLU can raise the rank again.

    Args:
        layer: the Pre-SVD layer, a convolution or nn.Linear.
        samples: n, the number of samples in the covariance: batch size times positions, or only the
            number of positions if each image has its own covariance.

    Raises:
        UserError: the layer has no fan-in, or no shape yet (a lazy layer before its first forward),
            or ``samples`` is not a whole number of at least 1.

    Example:
        >>> oc.structural_rank(torch.nn.Conv2d(3, 64, kernel_size=3), samples=4096)
        27
    """
    require_whole(samples, "samples")
    if isinstance(layer, LazyModuleMixin):  # its class changes at the first forward
        raise UserError(f"the {type(layer).__name__} has no shape yet: run one forward pass first")
    about: Any = layer
    if isinstance(layer, nn.Linear):
        groups, d, fan_in = 1, layer.out_features, layer.in_features
    elif hasattr(layer, "kernel_size") and hasattr(layer, "out_channels"):
        # An orthogonal convolution composed of several convolutions has a larger effective kernel.
        kernel = getattr(layer, "effective_kernel_size", None) or about.kernel_size
        groups, d = about.groups, about.out_channels
        fan_in = about.in_channels // groups * prod(kernel)
    else:
        raise UserError(
            f"a {type(layer).__name__} has no fan-in: name a convolution or a linear layer"
        )
    return min(groups * min(d // groups, fan_in), int(samples) - 1)
