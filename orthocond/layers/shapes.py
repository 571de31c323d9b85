"""Shapes of features with their channels at dimension 1, and the view of them as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from orthocond.errors import UserError

AXES: Mapping[int, Mapping[int, str]] = {
    1: {2: "", 3: ", L"},
    2: {4: ", H, W"},
    3: {5: ", D, H, W"},
}
"""For layers named 1d, 2d and 3d: the dimensions of an input, and its axes after (B, C)."""

SAMPLES: Mapping[int, str] = {1: "samples", 2: "pixels", 3: "voxels"}
"""What messages call the samples of a covariance, over the batch and its positions."""


def fits(x: Tensor, spatial: int, channels: int) -> bool:
    """Return whether x is an input of a layer named 1d, 2d or 3d with this number of channels."""
    return x.dim() in AXES[spatial] and x.shape[1] == channels


def shapes(spatial: int, channels: int | str = "C") -> str:
    """Return the text of the shapes that a layer named 1d, 2d or 3d takes.

    Example:
        >>> shapes(1, 8)
        '(B, 8) or (B, 8, L)'
    """
    return " or ".join(f"(B, {channels}{axes})" for axes in AXES[spatial].values())


def require_shape(x: Tensor, spatial: int, channels: int) -> None:
    """Raise a UserError if x has another shape than a whitening layer of this kind takes.

    The message names the class that takes x, if there is one.
    """
    if fits(x, spatial, channels):
        return
    other = next((n for n, axes in AXES.items() if x.dim() in axes and n != spatial), None)
    remedy = f": DecorrelatedBatchNorm{other}d takes {shapes(other)}" if other else ""
    raise UserError(
        f"expected an input of shape {shapes(spatial, channels)}, got {tuple(x.shape)}{remedy}"
    )


def as_images(x: Tensor) -> Tensor:
    """Return features (B, C, ...) as images (B', C, H, W) with the same samples, B' H W in number.

    A batch (B, C) is one image with B positions. Its products are then one matrix product, and not
    one for each sample. Contiguous and channels_last features are viewed, others can be copied.
    """
    if x.dim() == 2:
        return x.contiguous().mT[None, :, :, None]  # (1, C, B, 1), channels_last
    if x.dim() == 3:
        return x[..., None]  # (B, C, L, 1)
    return x if x.dim() == 4 else x.flatten(3)  # (B, C, D, H W)


def from_images(y: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the view of ``as_images`` in its original shape."""
    if len(shape) == 2:
        return y[0, :, :, 0].mT
    return y if len(shape) == 4 else y.view(shape)
