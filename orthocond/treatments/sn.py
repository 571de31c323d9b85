"""SN, spectral norm (eq. 11): the weight divided by its largest singular value.

Note [Evaluation]
    In training the norm is u^T W v, with one power iteration per forward pass; it is bit for bit
    the norm of torch's ``spectral_norm``. In evaluation the norm is exact, since u and v may not
    belong to W. An exponential moving average of weights and buffers makes the unit vectors u and v
    shorter; a moving average of the weights alone leaves u and v of another W. With such vectors
    the averaged weight had norm 2.3 and 1.1 after 300 steps; divided by its exact norm it has
    norm 1.

Note [Recomputation in the backward pass]
    A training forward advances the power iteration. A forward that torch.utils.checkpoint repeats
    in the backward must take u and v as the first left them: otherwise the gradient is that of
    another weight. Compiled code must ask at run time, so there the iteration is an operator.
    If a layer runs several times before the backward, the first calls are repeated with the vectors
    of the last one, and the gradient is off by up to a few percent. Run such a layer outside of the
    checkpoint, or call backward after each pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.module_tracker import ModuleTracker

from orthocond.host import double, full_precision
from orthocond.spectral.eigh import lower_eigh
from orthocond.treatments.layer.effective import evaluation
from orthocond.treatments.layer.matrix import to_matrix, wide
from orthocond.treatments.layer.parametrized import remove_parametrization
from orthocond.treatments.protocol import Treatment

EPS = 1e-12
"""Lower bound of the length that a vector is divided by, as in torch."""
START_STEPS = 15
"""Number of power iterations before the first forward pass, as in torch."""


def largest_singular_value(A: Tensor) -> Tensor:
    """Return the largest singular value of a matrix (m, n), 0-d and once differentiable.

    It is |A^T u|, where u is the left singular vector, computed in float64 from the smaller Gram
    matrix and then a constant: a second derivative would leave out that u changes with A. The
    result is NaN if A contains NaN.

    Raises:
        DecompositionError: no driver gave factors of the Gram matrix that pass the check.
    """
    A = A if A.shape[0] <= A.shape[1] else A.mT
    with torch.no_grad():
        B = double(A).nan_to_num(0, 0, 0)  # a decomposition of NaN would raise
        u = lower_eigh(B @ B.mT, strict=True).vectors[:, -1].to(A)
    return torch.linalg.vector_norm(A.mT @ u)


def _iterate(W: Tensor, u_buffer: Tensor, v_buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Update u and v by one power iteration, and return them in W's dtype.

    In a backward pass they are not updated (Note [Recomputation in the backward pass]).
    """
    if ModuleTracker().is_bw:
        return u_buffer.to(W.dtype, copy=True), v_buffer.to(W.dtype, copy=True)
    u = F.normalize(torch.mv(W, v_buffer.to(W.dtype)), dim=0, eps=EPS).to(W.dtype)
    v = F.normalize(torch.mv(W.mT, u), dim=0, eps=EPS).to(W.dtype)
    u_buffer.copy_(u)
    v_buffer.copy_(v)
    return u, v


_iterate_operator = torch.library.custom_op(
    "orthocond::iterate", _iterate, mutates_args={"u_buffer", "v_buffer"}
)


@_iterate_operator.register_fake
def _(W: Tensor, u_buffer: Tensor, v_buffer: Tensor) -> tuple[Tensor, Tensor]:
    return W.new_empty(u_buffer.shape), W.new_empty(v_buffer.shape)


class _OverNorm(nn.Module):
    """The parametrization of torch's ``spectral_norm``, exact in evaluation (Note [Evaluation]).

    The arithmetic is in float32 or float64, whatever dtype the weight has.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, kind: type[nn.Module]) -> None:
        super().__init__()
        self._kind = kind  # the layer's class gives the order of the weight's axes
        W = to_matrix(weight.detach(), kind)
        W = W.to(wide(W.dtype))
        u = W.new_empty(W.shape[0]).normal_(0, 1)
        v = W.new_empty(W.shape[1]).normal_(0, 1)
        self.register_buffer("_u", F.normalize(u, dim=0, eps=EPS).to(weight.dtype))
        self.register_buffer("_v", F.normalize(v, dim=0, eps=EPS).to(weight.dtype))
        for _ in range(START_STEPS):
            self._iterate(W)

    @torch.no_grad()
    def _iterate(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """Update u and v by one power iteration, and return them."""
        iterate = _iterate_operator if torch.compiler.is_compiling() else _iterate
        return iterate(W, self._u, self._v)

    def forward(self, weight: Tensor) -> Tensor:
        W = to_matrix(weight, self._kind)
        W = W.to(wide(W.dtype))
        with full_precision(weight):  # autocast rounds torch.mv on CUDA
            if self.training:
                u, v = self._iterate(W.detach())
                norm = torch.vdot(u, torch.mv(W, v))
            else:
                norm = largest_singular_value(W)
        return (weight.to(W.dtype) / norm).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return an assigned weight as the underlying parameter, before division by its norm."""
        return weight


class SpectralNorm(Treatment):
    """SN: divides the weight by its spectral norm, which is exact in evaluation.

    In training the norm comes from one power iteration per forward pass. Under
    torch.utils.checkpoint the gradient is correct if the layer runs once before each backward pass
    (Note [Recomputation in the backward pass]).
    """

    name = "sn"
    acts_on = "weight"

    def replace(self, layer: nn.Module) -> nn.Module:
        """Parametrize the weight."""
        weight: Tensor = layer.weight  # type: ignore[assignment]
        parametrize.register_parametrization(layer, "weight", _OverNorm(weight, type(layer)))
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """Remove the parametrization, and keep its present weight as a plain parameter."""
        with evaluation(layer):  # in training, a power iteration would change the weight
            return remove_parametrization(layer)
