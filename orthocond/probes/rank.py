"""The rank that an architecture allows the covariance of a layer's output."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from orthocond.errors import UserError, require_whole


def structural_rank(layer: nn.Module, samples: int) -> int:
    """Return the largest rank that the covariance of a layer's output can have.

    It is min(d, fan-in, n - 1); a grouped convolution counts by its groups. It holds up to the
    next nonlinearity: a ReLU can raise the rank again.

    Args:
        layer: the Pre-SVD layer, a convolution or nn.Linear.
        samples: n, the number of samples that the covariance is over: batch size times positions,
            or the positions alone where each image has a covariance of its own.

    Raises:
        UserError: the layer has no fan-in, or none yet (a lazy layer before its first forward), or
            ``samples`` is not a whole number from 1.

    Example:
        >>> oc.structural_rank(torch.nn.Conv2d(3, 64, kernel_size=3), samples=4096)
        27
    """
    require_whole(samples, "samples")
    if isinstance(layer, LazyModuleMixin):  # only until its first forward
        raise UserError(f"the {type(layer).__name__} has no shape yet: run one forward pass first")
    about: Any = layer
    if isinstance(layer, nn.Linear):
        groups, d, fan_in = 1, layer.out_features, layer.in_features
    elif hasattr(layer, "kernel_size") and hasattr(layer, "out_channels"):
        # An orthogonal convolution that is composed of several reaches farther than its kernel.
        kernel = getattr(layer, "effective_kernel_size", None) or about.kernel_size
        groups, d = about.groups, about.out_channels
        fan_in = about.in_channels // groups * prod(kernel)
    else:
        raise UserError(
            f"a {type(layer).__name__} has no fan-in: name a convolution or a linear layer"
        )
    return min(groups * min(d // groups, fan_in), int(samples) - 1)
