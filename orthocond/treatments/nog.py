"""NOG, the nearest orthogonal gradient (eqs. 14 to 17), and a control for its step length."""

from __future__ import annotations

from torch import Tensor

from orthocond.spectral.polar import polar_factor
from orthocond.treatments.protocol import Treatment


class NearestOrthogonalGradient(Treatment):
    """NOG: replaces the gradient by its polar factor, before momentum and weight decay."""

    name = "nog"
    acts_on = "gradient"

    def on_gradient(self, G: Tensor) -> Tensor:
        """Return U V^T, where G = U S V^T is the singular value decomposition."""
        return polar_factor(G)


class RescaledGradient(Treatment):
    """A control for NOG: keeps the gradient's direction, and gives it NOG's norm at full rank."""

    name = "rescale"
    acts_on = "gradient"

    def on_gradient(self, G: Tensor) -> Tensor:
        """Return G sqrt(min(m, n)) / |G|_F, or 0 for G = 0.

        The norm of NOG's result is sqrt(rank(G)), which is smaller if G is rank-deficient.
        """
        norm = G.norm()
        return G * (min(G.shape) ** 0.5 / norm) if norm > 0 else G
