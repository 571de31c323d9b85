"""A layer's weight as the matrix (out, in k k) that treatments speak of, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Embedding)
"""Layers whose weight is known to be one matrix; their subclasses count."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, and float32 for all that is narrower."""
    return torch.promote_types(dtype, torch.float32)


def _input_first(T: Tensor, kind: type[nn.Module]) -> bool:
    """Tell whether dimension 0 of a tensor counts inputs, as in a transposed convolution.

    The matrix that ow-stiefel trains in place of such a kernel is (out, in k k) already.
    """
    return issubclass(kind, nn.Embedding) or (issubclass(kind, TRANSPOSED) and T.dim() > 2)


def to_matrix(T: Tensor, kind: type[nn.Module]) -> Tensor:
    """Return a weight of a layer, or a gradient of that shape, as a matrix.

    Args:
        T: (out, in, k...), or (in, out, k...) of a transposed convolution, or (tokens, out) of an
            embedding, which maps one-hot tokens to its rows.
        kind: of the layer.

    Returns:
        (out, in k k); a view where the memory allows it.

    Example:
        >>> to_matrix(torch.zeros(3, 8, 5, 5), torch.nn.ConvTranspose2d).shape
        torch.Size([8, 75])
    """
    return (T.transpose(0, 1) if _input_first(T, kind) else T).flatten(1)


def from_matrix(M: Tensor, like: Tensor, kind: type[nn.Module]) -> Tensor:
    """Return a matrix (out, in k k) in the shape of a weight.

    Args:
        M: as ``to_matrix`` gives it.
        like: a tensor of the wanted shape.
        kind: of the layer.
    """
    if _input_first(like, kind):
        return M.reshape(like.transpose(0, 1).shape).transpose(0, 1)
    return M.reshape(like.shape)
