"""OW, the orthogonal weight (eq. 13): the layer becomes a skew orthogonal convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from orthocond.errors import UserError
from orthocond.host import CPU
from orthocond.layers.skew import SkewOrthogonalConv2d, check_kernel
from orthocond.treatments.layer.checks import require_lossless
from orthocond.treatments.layer.place import refilled
from orthocond.treatments.protocol import Treatment


def _arguments(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments that the skew convolution shares with the plain one."""
    return {
        "kernel_size": layer.kernel_size[0],
        "stride": layer.stride[0],
        "padding": layer.padding[0],
        "dilation": layer.dilation[0],
        "groups": layer.groups,
    }


class OrthogonalWeight(Treatment):
    """OW: replaces the convolution by a skew orthogonal one with new random weights."""

    name = "ow"
    acts_on = "weight"

    def check(self, layer: nn.Module) -> None:
        """Raise UserError unless the layer is a convolution that keeps the size of the image."""
        if not isinstance(layer, nn.Conv2d):
            raise UserError(f"ow needs a Conv2d, got a {type(layer).__name__}: use ow-stiefel")
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise UserError(f"ow needs zero padding given as a number, got {layer}")
        pairs = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if any(height != width for height, width in pairs):
            raise UserError(
                "ow needs the same kernel size, stride, padding and dilation in height and width, "
                f"got {layer}"
            )
        check_kernel(**_arguments(layer))
        require_lossless(layer, "ow", nn.Conv2d)

    def replace(self, layer: nn.Module) -> nn.Module:
        """Return a skew orthogonal convolution of the same shape; it keeps a frozen bias.

        The numbers are float32 ones of the CPU's generator, whatever device and dtype the layer
        has, and whatever torch's defaults are.
        """
        self.check(layer)
        assert isinstance(layer, nn.Conv2d)
        skew = SkewOrthogonalConv2d(
            *(layer.in_channels, layer.out_channels),
            bias=layer.bias is not None,
            device=CPU,
            dtype=torch.float32,
            **_arguments(layer),
        )
        skew = skew.to(layer.weight.device, layer.weight.dtype).train(layer.training)
        skew.filter = refilled(layer.get_parameter("weight"), skew.filter)
        if skew.bias is not None:
            bias = layer.get_parameter("bias")
            skew.bias = refilled(bias, skew.bias) if bias.requires_grad else bias
        return skew

    def restore(self, layer: nn.Module) -> nn.Module:
        """Return a plain convolution with the kernel that the layer uses in evaluation.

        Raises:
            UserError: the layer has hooks, which the plain convolution would lose.
        """
        assert isinstance(layer, SkewOrthogonalConv2d)
        require_lossless(layer, "remove", SkewOrthogonalConv2d)
        return layer.to_conv2d()
