"""OW-Conv: a convolution that is orthogonal as an operator, at its own kernel size.

Note [Block convolution]
    A symmetric projector P and its complement I - P make an orthogonal convolution of two taps:
    y(t) = P x(t) + (I - P) x(t - 1) splits x into two orthogonal parts and delays one of them.
    Products of orthogonal operators are orthogonal. So an orthogonal matrix, followed by k - 1 such
    pairs in each direction, is an orthogonal k x k convolution (Kautsky and Turcajova 1994; Xiao et
    al. 2018; BCOP of Li et al. 2019). Not all orthogonal k x k convolutions are of this form, and
    training can't change the rank of a projector. As in BCOP it is half the channels, rounded down.
    Every second pair delays the other part: otherwise an odd number of channels would shift images.

Note [Wide and tall]
    With c = max(in, out) channels the c x c convolution is orthogonal. Its first ``in`` inputs give
    a tall one, whose columns are orthonormal at each frequency. So only the matrix (c, in) is
    trained, not (c, c). A wide convolution is a tall one with inputs and outputs exchanged.

Note [Orthogonal blocks]
    All blocks are in one parameter (c, n + 2 (k - 1) r). The matrix is the polar factor
    M (M^T M)^(-1/2) of its block, and a projector's basis that of another. The Gram matrices are in
    float64, so that all is orthogonal up to rounding if the parameter is in bfloat16, too. A block
    and its multiples give one factor. So weight decay changes the length of a block and the size of
    the next steps, as with weight normalization, and no singular value. For the same reason the
    gradient is orthogonal to what conditions a block: a block with equal singular values keeps
    them, to first order in the step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from orthocond.errors import DecompositionError, UserError
from orthocond.host import CPU, Refusal, double, full_precision, refuse
from orthocond.spectral.roots import root
from orthocond.treatments.layer.parametrized import remove_parametrization
from orthocond.treatments.layer.place import refilled
from orthocond.treatments.protocol import Treatment

LIMIT = 1e-5
"""Limit for the entries of Q^T Q - I of a block; condition numbers of about 1e5 reach it."""


NO_FACTOR = (
    "the parameter of ow-conv has a block that is not finite or without full rank, which no "
    "orthogonal matrix is nearest to: lower the learning rate, or load an earlier checkpoint"
)


def block_convolution(H: Tensor, V: Tensor) -> Tensor:
    """Return the kernel of an orthogonal matrix followed by pairs of projectors.

    Note [Block convolution] gives the formula.

    Args:
        H: (c, n), with orthonormal columns.
        V: (2 (k - 1), c, r), orthonormal bases of the projectors, for height and width in turn.

    Returns:
        (c, n, k, k): its convolution under circular padding has orthonormal columns.

    Example:
        >>> V = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
        >>> block_convolution(torch.eye(2), V)[0, 0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    K = H[:, :, None, None]
    for i, basis in enumerate(V):
        part = (basis @ (basis.mT @ K.flatten(1))).view_as(K)  # P K
        here, delayed = (part, K - part) if i // 2 % 2 == 0 else (K - part, part)
        before, after = ((0, 0, 1, 0), (0, 0, 0, 1)) if i % 2 == 0 else ((1, 0), (0, 1))
        K = F.pad(here, after) + F.pad(delayed, before)  # one row or column more
    return K


def _orthonormal(M: Tensor) -> Tensor:
    """Return the polar factors of tall matrices (..., m, n) in float64, differentiable.

    Raises:
        DecompositionError: a matrix is not finite, or its rank is not n up to rounding.
    """
    if M.numel() == 0:
        return M
    M = M / M.detach().abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(M.dtype).tiny)
    Q = M @ root(M.mT @ M, "inv_sqrt")[0]  # the root is zero if it failed, and so is Q, or NaN
    with torch.no_grad():
        E = Q.mT @ Q - torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
        failed = ~(E.abs().amax() < LIMIT)
    return refuse(Q, Refusal(failed, DecompositionError, NO_FACTOR))


class _FromBlocks(nn.Module):
    """The parametrization of the kernel by blocks (Note [Orthogonal blocks])."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self._out, self._in, self._side = shape[:3]

    @property
    def _widths(self) -> tuple[int, int, int]:
        """Number of columns of the matrix, of projectors, and of columns of each."""
        return min(self._in, self._out), 2 * (self._side - 1), max(self._in, self._out) // 2

    def _blocks(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Return orthonormal H (c, n) and V (2 (k - 1), c, r) from the packed blocks."""
        n, projectors, r = self._widths
        V = packed[:, n:].unflatten(1, (projectors, r)).transpose(0, 1)  # (2 (k - 1), c, r)
        return _orthonormal(packed[:, :n]), _orthonormal(V)

    def start(self) -> Tensor:
        """Draw the packed parameter (c, n + 2 (k - 1) r) of orthonormal blocks, in float64.

        The numbers come from the CPU's generator, whatever device and dtype the layer has.
        """
        n, projectors, r = self._widths
        shape = (max(self._in, self._out), n + projectors * r)
        H, V = self._blocks(torch.randn(shape, dtype=torch.float64, device=CPU))
        return torch.cat([H, V.transpose(0, 1).flatten(1)], dim=1)

    def forward(self, packed: Tensor) -> Tensor:
        """Return the kernel (out, in, k, k) in the dtype of the packed parameter."""
        with full_precision(packed):
            K = block_convolution(*self._blocks(double(packed)))  # (c, n, k, k)
        K = K if self._out >= self._in else K.transpose(0, 1)  # Note [Wide and tall]
        return K.to(packed)


class OrthogonalConvolution(Treatment):
    """OW-Conv: the convolution keeps its kernel size and becomes orthogonal as an operator.

    The kernel is an orthogonal matrix, block-convolved with 2 (k - 1) pairs (P, I - P) of symmetric
    projectors of half rank (Note [Block convolution]). Under circular padding all singular values
    of the operator are 1, up to rounding; with more inputs than outputs it is the operator's rows
    that are orthonormal. The layer keeps its own padding, and with zeros the border loses norm. A
    kernel in half precision is rounded once, which moves singular values by some 1e-3.

    The start is random and does not depend on the present weight. The trained parameter packs
    several matrices, so ``ow-conv`` excludes treatments of the gradient and the step. Source: Li et
    al. 2019, "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks".

    Choose it as the control for OW, whose 3x3 kernel becomes 11x11, and for OW-Stiefel, whose
    flattened kernel is orthogonal but not its operator.

    Example:
        >>> conv = torch.nn.Conv2d(3, 64, 3, padding=1, padding_mode="circular", bias=False)
        >>> model = torch.nn.Sequential(conv)
        >>> treated = oc.treat(model, "0", "ow-conv")
        >>> x = torch.randn(1, 3, 32, 32)
        >>> torch.allclose(model(x).norm(), x.norm(), rtol=1e-5), tuple(treated.parameter.shape)
        (True, (64, 131))
    """

    name = "ow-conv"
    acts_on = "weight"
    packs = True

    def check(self, layer: nn.Module) -> None:
        """Raise UserError unless the layer is a convolution that can be orthogonal at its size."""
        if not isinstance(layer, nn.Conv2d):
            raise UserError(f"ow-conv needs a Conv2d, got a {type(layer).__name__}: use ow-stiefel")
        height, width = layer.kernel_size
        if height != width:
            raise UserError(f"ow-conv needs a square kernel, got {height} x {width}")
        for name in ("stride", "dilation"):
            value: tuple[int, int] = getattr(layer, name)
            if value != (1, 1):
                raise UserError(
                    f"ow-conv needs {name} 1, got {value}: its kernel is orthogonal for {name} 1; "
                    "use ow-stiefel"
                )

    def replace(self, layer: nn.Module) -> nn.Module:
        """Parametrize the weight, and draw its blocks."""
        weight = layer.get_parameter("weight")
        parametrization = _FromBlocks(weight.shape)
        packed = parametrization.start().to(weight.device, weight.dtype)
        parametrize.register_parametrization(layer, "weight", parametrization, unsafe=True)
        refilled(layer.get_parameter("parametrizations.weight.original"), packed)
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """Remove the parametrization, and put its present weight into a new plain parameter.

        The old parameter keeps its shape, since an optimizer may hold it with states of this shape.
        """
        blocks = layer.get_submodule("parametrizations.weight")
        blocks.original = nn.Parameter(blocks.get_parameter("original").detach().clone())
        with torch.no_grad():
            return remove_parametrization(layer)
