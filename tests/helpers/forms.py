"""Whitening layers of each dimension that take images, so that the tests of one run for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

import orthocond as oc


class _OfImages:
    """Pass images (B, C, H, W) through a layer in the shape that it takes; other inputs as is."""

    def forward(self, input: Tensor) -> Tensor:
        x = input
        if x.dim() != 4:
            return super().forward(x)  # type: ignore[misc]
        y = super().forward(self.shaped(x))  # type: ignore[misc, attr-defined]
        return self.back(y, x.shape)  # type: ignore[attr-defined]


class OfVectors(_OfImages, oc.DecorrelatedBatchNorm1d):
    """Each pixel is a vector (C,) of the batch."""

    @staticmethod
    def shaped(x: Tensor) -> Tensor:
        return x.movedim(1, 3).flatten(0, 2)

    @staticmethod
    def back(y: Tensor, shape: tuple[int, ...]) -> Tensor:
        B, C, H, W = shape
        return y.view(B, H, W, C).movedim(3, 1)


class OfSequences(_OfImages, oc.DecorrelatedBatchNorm1d):
    """Each image is a sequence (C, H W)."""

    @staticmethod
    def shaped(x: Tensor) -> Tensor:
        return x.flatten(2)

    @staticmethod
    def back(y: Tensor, shape: tuple[int, ...]) -> Tensor:
        return y.unflatten(2, shape[2:])


class OfVolumes(_OfImages, oc.DecorrelatedBatchNorm3d):
    """Each image is a volume (C, 1, H, W)."""

    @staticmethod
    def shaped(x: Tensor) -> Tensor:
        return x.unsqueeze(2)

    @staticmethod
    def back(y: Tensor, shape: tuple[int, ...]) -> Tensor:
        return y.squeeze(2)


WHITENING: dict[str, Callable[..., Any]] = {
    "2d": oc.DecorrelatedBatchNorm2d,
    "vectors": OfVectors,
    "sequences": OfSequences,
    "3d": OfVolumes,
}


def shaped(layer: Any, x: Tensor) -> Tensor:
    """Return the images x in the shape that the layer's own class takes."""
    return layer.shaped(x) if isinstance(layer, _OfImages) else x
