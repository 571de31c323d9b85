"""OW on the Stiefel manifold: orthonormal columns (or rows) of the flattened kernel.

Note [The map]
    torch's default map for tall matrices, Householder, keeps the signs of its columns in the
    parameter's diagonal and truncates it to integers: weight decay, or a gradient that is not
    zero there (NOG's), turns -1 into -0.9995 and the column into zeros. The matrix exponential
    has no such corner. The gradient of torch's matrix_exp depends on the scale of the loss, though:
    in float32 its relative error is 5e-7 without a loss scale and 4e-4 under one of 2^16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from orthocond.treatments.protocol import Treatment


class _Flat(nn.Module):
    """Holds the kernel as a matrix (out, in k k), for torch's parametrization."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(W)


class _FromMatrix(nn.Module):
    """Gives the kernel from the orthogonal matrix that it holds."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = _Flat(weight.detach().flatten(1).clone())
        # Note [The map]
        self.matrix = parametrizations.orthogonal(matrix, orthogonal_map="matrix_exp")

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # its products would be rounded
            orthogonal: Tensor = self.matrix.weight  # type: ignore[assignment]
        return orthogonal.view_as(weight)


class StiefelWeight(Treatment):
    """A weight with orthonormal columns or rows, at the 3x3 size of the layer itself."""

    name = "ow-stiefel"
    acts_on = "weight"

    def replace(self, layer: nn.Module) -> nn.Module:
        """Parametrize the flattened weight by torch's ``orthogonal``."""
        weight: Tensor = layer.weight  # type: ignore[assignment]
        parametrize.register_parametrization(layer, "weight", _FromMatrix(weight), unsafe=True)
        # The layer's own tensor only lends its shape: it is not trained.
        layer.get_parameter("parametrizations.weight.original").requires_grad_(False)
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """Keep the weight that the parametrization gives."""
        with torch.no_grad():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer.get_parameter("weight").requires_grad_(True)
        return layer
