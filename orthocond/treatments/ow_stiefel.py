"""OW on the Stiefel manifold: the flattened kernel has orthonormal columns (or rows).

Note [The map]
    torch's default map for tall matrices is Householder. It stores the signs of the columns in the
    parameter's diagonal and truncates the diagonal to integers. Weight decay, or a gradient that is
    not zero there (as with NOG), turns -1 into -0.9995, and truncation then makes the column zero.
    The matrix exponential has no such flaw. But the gradient of torch's matrix_exp depends on the
    scale of the loss: in float32 its relative error is 5e-7 without a loss scale, and 4e-4 with a
    loss scale of 2^16.

Note [The base in half precision]
    The orthogonal matrix is base exp(A). The base is a buffer, so ``.bfloat16()`` rounds it, with a
    relative error of 4e-3. In half precision both factors are computed in float32, and the base is
    replaced by its polar factor. So the product is orthogonal to float32's accuracy before it is
    rounded. If the base was in a narrower dtype for a while (``.bfloat16().float()``, or a
    checkpoint stored in half precision), it is made orthogonal again, once. A base that is
    orthogonal already is kept bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from orthocond.host import CPU, full_precision
from orthocond.spectral.polar import polar_factor
from orthocond.treatments.layer.matrix import from_matrix, to_matrix, wide
from orthocond.treatments.layer.parametrized import remove_parametrization
from orthocond.treatments.layer.place import refilled
from orthocond.treatments.protocol import Treatment


class _Rotated(torch.autograd.Function):
    """The first k columns of base exp(A), for skew-symmetric A (n, n).

    Autocast would compute products in half precision, so both passes disable it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, base: Tensor, k: int) -> Tensor:
        with full_precision(A):
            return base @ torch.matrix_exp(A)[:, :k]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, base, ctx.k = inputs
        ctx.save_for_backward(A, base)
        ctx.save_for_forward(A, base)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        A, base = ctx.saved_tensors
        with full_precision(g):
            G = F.pad(base.mT @ g, (0, len(A) - ctx.k))
            return _derivative(A.mT, G), None, None


class _RotatedForward(_Rotated):
    # Note [Compiled functions] of spectral/lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, *_: Any) -> Tensor:
        A, base = ctx.saved_tensors
        with full_precision(dA):
            return base @ _derivative(A, dA)[:, : ctx.k]


def _derivative(A: Tensor, C: Tensor) -> Tensor:
    """Return the derivative of the matrix exponential at A in the direction C, as torch does."""
    n = len(A)
    block = torch.cat([torch.cat([A, C], 1), torch.cat([torch.zeros_like(A), A], 1)])
    return torch.matrix_exp(block)[:n, n:]


def _mapped(X: Tensor, base: Tensor) -> Tensor:
    """Return what torch's parametrization does for X (m, n), with a gradient in full precision."""
    if X.shape[0] < X.shape[1]:
        return _mapped(X.mT, base).mT
    n, k = X.shape
    L = F.pad(X.tril(), (0, n - k))
    A = L - L.mT
    if torch.jit.is_tracing():  # its graphs have no autograd functions
        return base @ torch.matrix_exp(A)[:, :k]
    function = _Rotated if torch.compiler.is_compiling() else _RotatedForward
    W: Tensor = function.apply(A, base, k)
    return W


class _Flat(nn.Module):
    """A module that holds the kernel as a matrix (out, in k k), for torch's parametrization."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(W)


class _FromMatrix(nn.Module):
    """A parametrization that returns its own orthogonal matrix in the shape of the kernel."""

    def __init__(self, weight: Tensor, kind: type[nn.Module]) -> None:
        super().__init__()
        self._kind = kind  # the layer's class gives the order of the weight's axes
        dtype = weight.dtype
        matrix = to_matrix(weight.detach(), kind).to(wide(dtype), copy=True)
        if matrix.is_meta:  # torch would leave the base out, or stop
            matrix = torch.eye(*matrix.shape, dtype=matrix.dtype, device=CPU)
        # Note [The map]
        trained = parametrizations.orthogonal(_Flat(matrix), orthogonal_map="matrix_exp")
        self.matrix = trained.to(weight.device, dtype)
        self.register_load_state_dict_post_hook(_after_load)

    def forward(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            W = self._orthogonal()
        return from_matrix(W, weight, self._kind).to(weight.dtype)

    @property
    def _trained(self) -> parametrize.ParametrizationList:
        trained = self.matrix.get_submodule("parametrizations.weight")
        assert isinstance(trained, parametrize.ParametrizationList)
        return trained

    @property
    def _base(self) -> Tensor:
        return self._trained[0].get_buffer("base")

    def _orthogonal(self) -> Tensor:
        """Return the orthogonal matrix (out, in k k), in float32 or float64."""
        X: Tensor = self._trained.original
        if X.dtype == wide(X.dtype):
            return _mapped(X, self._base)
        # Note [The base in half precision]
        base = polar_factor(self._base.to(wide(X.dtype)))
        return _mapped(X.to(base.dtype), base)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the module as ``nn.Module`` does, and keep the base orthogonal."""
        before = self._base.dtype
        super()._apply(fn, recurse)
        if self._base.dtype != before:
            self.repair()
        return self

    @torch.no_grad()
    def repair(self) -> None:
        """Make the base orthogonal to the accuracy of its dtype, unless it is already."""
        B = self._base
        if B.dtype != wide(B.dtype) or B.is_meta or not B.isfinite().all():
            return
        E = B.mT @ B - torch.eye(len(B), dtype=B.dtype, device=B.device)
        if E.abs().amax() > 10 * len(B) * torch.finfo(B.dtype).eps:  # torch's criterion
            B.copy_(polar_factor(B))


def _after_load(module: nn.Module, _: Any) -> None:
    """Repair the base after loading a state dict (Note [The base in half precision]).

    It is a function and not a bound method, so that copies of the model can share it.
    """
    assert isinstance(module, _FromMatrix)
    module.repair()


class StiefelWeight(Treatment):
    """OW-Stiefel: makes the columns or rows of the flattened weight orthonormal.

    The kernel keeps the size of the layer.
    """

    name = "ow-stiefel"
    acts_on = "weight"

    def replace(self, layer: nn.Module) -> nn.Module:
        """Parametrize the flattened weight with torch's ``orthogonal``."""
        weight = layer.get_parameter("weight")
        parametrization = _FromMatrix(weight, type(layer))
        # The layer's own tensor only gives the shape; it is not trained.
        layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        parametrize.register_parametrization(layer, "weight", parametrization, unsafe=True)
        trained = parametrization.get_parameter("matrix.parametrizations.weight.original")
        parametrization._trained.original = refilled(weight, trained)
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """Remove the parametrization, and keep its present weight as a plain parameter."""
        with torch.no_grad():
            remove_parametrization(layer)
        layer.get_parameter("weight").requires_grad_(True)
        return layer
