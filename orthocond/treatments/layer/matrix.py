"""Conversion of a layer's weight to the matrix (out, in k k) that treatments act on, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Embedding)
"""Layers whose weight is known to be one matrix; their subclasses are included."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, float32 for every narrower dtype."""
    return torch.promote_types(dtype, torch.float32)


def _input_first(T: Tensor, kind: type[nn.Module]) -> bool:
    """Return whether dimension 0 of a tensor counts inputs, as in a transposed convolution.

    A transposed convolution treated by ow-stiefel trains a matrix, which is (out, in k k) already.
    """
    return issubclass(kind, nn.Embedding) or (issubclass(kind, TRANSPOSED) and T.dim() > 2)


def to_matrix(T: Tensor, kind: type[nn.Module]) -> Tensor:
    """Return the weight of a layer, or a gradient of the same shape, as a matrix.

    Args:
        T: (out, in, k...); (in, out, k...) for a transposed convolution; (tokens, out) for an
            embedding, which maps one-hot tokens to its rows.
        kind: class of the layer.

    Returns:
        (out, in k k); a view where the memory layout allows it.

    Example:
        >>> to_matrix(torch.zeros(3, 8, 5, 5), torch.nn.ConvTranspose2d).shape
        torch.Size([8, 75])
    """
    return (T.transpose(0, 1) if _input_first(T, kind) else T).flatten(1)


def from_matrix(M: Tensor, like: Tensor, kind: type[nn.Module]) -> Tensor:
    """Return a matrix in the shape of a layer's weight: the inverse of ``to_matrix``.

    Args:
        M: matrix (out, in k k).
        like: a tensor of the wanted shape.
        kind: class of the layer.
    """
    if _input_first(like, kind):
        return M.reshape(like.transpose(0, 1).shape).transpose(0, 1)
    return M.reshape(like.shape)
