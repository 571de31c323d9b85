"""Muon's step for one layer: the displacement of the optimizer's step is made orthogonal.

Note [Muon and NOG]
    NOG makes the gradient orthogonal, and the optimizer then adds it to the momentum: the step is a
    sum of orthogonal matrices, and no orthogonal matrix itself. Muon (Jordan et al. 2024) makes the
    momentum orthogonal, so every step is. The momentum here is the displacement of whatever
    optimizer trains the layer, weight decay included. The factor sqrt(max(1, m / n)) is the one of
    Jordan et al. and of ``torch.optim.Muon``'s "original": a tall step changes the outputs as much
    as a square one.

Note [Rounding of the displacement]
    The displacement is the difference of two rounded weights, so each of its entries has an error
    of up to half an ulp of the weight. A singular value of the displacement below this noise has
    singular vectors of noise, and the polar factor gives them the full length. In float32 this is
    far away: on the stem of the small ResNet the polar factor had an error of 3e-6 at the rate 0.1,
    and of 4e-4 at 1e-3. It shows in bfloat16 weights, whose ulp is 4e-3 of the entry.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from orthocond.spectral.polar import polar_factor
from orthocond.treatments.protocol import Step, Treatment


def orthogonal_displacement(D: Tensor, lr: float) -> Tensor:
    """Return lr sqrt(max(1, m / n)) U V^T for a displacement D = U S V^T (m, n).

    The length does not depend on D. Only D = 0 stays 0, and a null space of D stays at 0.

    Args:
        D: displacement (m, n), finite.
        lr: learning rate, at least 0.

    Returns:
        (m, n) in D's dtype.

    Example:
        >>> orthogonal_displacement(-torch.diag(torch.tensor([3.0, 0.1])), 0.5).tolist()
        [[-0.5, 0.0], [0.0, -0.5]]
    """
    m, n = D.shape
    return lr * max(1.0, m / n) ** 0.5 * polar_factor(D)


class OrthogonalStep(Treatment):
    """Muon: steps by W <- W + lr sqrt(max(1, m / n)) U V^T, where the optimizer stepped by U S V^T.

    The weight is read as the matrix (m, n) = (out, in k k), and lr is the learning rate of its
    group. Gradient, momentum and weight decay act as usual, and determine the direction only. A
    step that is skipped moves nothing. Source: Jordan et al. 2024, "Muon: an optimizer for hidden
    layers in neural networks".

    Choose it to compare NOG with Muon on the Pre-SVD layer, while the other layers keep their
    optimizer; all steps have the same length, so let the learning rate fall in the end.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> treated = oc.treat(model, "0", "muon")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> treated.bind(optimizer)
        >>> old = treated.weight()
        >>> model(torch.rand(16, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> torch.linalg.svdvals(treated.weight() - old).mul(1000).round().tolist()
        [100.0, 100.0, 100.0, 100.0]
    """

    name = "muon"
    acts_on = "step"

    def on_step(self, step: Step) -> None:
        """Have the displacement replaced; find no learning rate."""
        step.move = partial(orthogonal_displacement, lr=step.lr)
