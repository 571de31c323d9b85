"""SN, spectral norm (eq. 11): the weight over its largest singular value."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations, parametrize

from orthocond.treatments.effective import evaluation
from orthocond.treatments.protocol import Treatment


class SpectralNorm(Treatment):
    """torch's spectral_norm, one power iteration a forward pass."""

    name = "sn"
    acts_on = "weight"

    def replace(self, layer: nn.Module) -> nn.Module:
        """Parametrize the weight."""
        return parametrizations.spectral_norm(layer)

    def restore(self, layer: nn.Module) -> nn.Module:
        """Keep the weight that the parametrization gives."""
        with evaluation(layer):  # a power iteration would make it another weight
            return parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
