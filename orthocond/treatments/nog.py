"""NOG, the nearest orthogonal gradient (eqs. 14 to 17), and what it does to the step's length."""

from __future__ import annotations

from torch import Tensor

from orthocond.spectral.polar import polar_factor
from orthocond.treatments.protocol import Treatment


class NearestOrthogonalGradient(Treatment):
    """Replaces the gradient by its polar factor, before momentum and weight decay."""

    name = "nog"
    acts_on = "gradient"

    def on_gradient(self, G: Tensor) -> Tensor:
        """U V^T of G = U S V^T."""
        return polar_factor(G)


class RescaledGradient(Treatment):
    """A control for NOG: the gradient's direction, with the norm that NOG would give it."""

    name = "rescale"
    acts_on = "gradient"

    def on_gradient(self, G: Tensor) -> Tensor:
        """G sqrt(min(m, n)) / |G|_F; zero stays zero."""
        norm = G.norm()
        return G * (min(G.shape) ** 0.5 / norm) if norm > 0 else G
