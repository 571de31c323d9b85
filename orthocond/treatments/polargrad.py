"""PolarGrad: the polar factor of the gradient, at a length that vanishes with the gradient.

Note [Descent in the spectral norm]
    The nuclear norm is dual to the spectral norm. So -|G|_* U V^T is the direction of steepest
    descent in the spectral norm: among all D it minimises <G, D> + |D|_2^2 / 2. NOG takes the
    direction U V^T alone, whose length never changes: near a minimum, with a constant learning
    rate, it keeps jumping over it. The length here is |G|_* sqrt(r) in the Frobenius norm for a
    gradient of rank r, between sqrt(r) and r times |G|_F. So the learning rate for the other
    layers may be too large for this one.
"""

from __future__ import annotations

from torch import Tensor

from orthocond.spectral.polar import polar_factor
from orthocond.treatments.protocol import Treatment


def polar_gradient(G: Tensor) -> Tensor:
    """Return |G|_* U V^T for G = U S V^T, where |G|_* is the sum of the singular values.

    Args:
        G: matrix (m, n), finite.

    Returns:
        (m, n) in G's dtype; a null space of G stays at 0.

    Example:
        >>> polar_gradient(torch.diag(torch.tensor([3.0, 0.5]))).tolist()
        [[3.5, 0.0], [0.0, 3.5]]
    """
    R = polar_factor(G)
    return (G * R).sum() * R  # <G, U V^T> = tr S


class PolarGradient(Treatment):
    """PolarGrad: replaces the gradient G = U S V^T by tr(S) U V^T, before momentum and decay.

    Source: Lau, Long, Su 2025, "PolarGrad" (arXiv 2505.21799).

    Choose it instead of NOG where the learning rate stays constant or is tuned for this layer: its
    steps shrink with the gradient, as those of gradient descent do.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> treated = oc.treat(model, "0", "polargrad")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> treated.bind(optimizer)
        >>> model(torch.rand(16, 8)).square().sum().backward()
        >>> nuclear = torch.linalg.matrix_norm(model[0].weight.grad, "nuc")
        >>> optimizer.step()
        >>> s = torch.linalg.svdvals(model[0].weight.grad)
        >>> torch.allclose(s, nuclear, rtol=1e-4)
        True
    """

    name = "polargrad"
    acts_on = "gradient"

    def on_gradient(self, G: Tensor) -> Tensor:
        """Return tr(S) U V^T."""
        return polar_gradient(G)
