"""Global covariance pooling: the root of the covariance of a feature map (eq. 44), log or power."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from orthocond.errors import UserError, require_floating, require_nonnegative, unknown
from orthocond.host import double, full_precision
from orthocond.layers.inference.symbolic import one_node
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.backward_rules import Backward
from orthocond.spectral.covariance.functions import covariance_function
from orthocond.spectral.covariance.lowrank import covariance_root
from orthocond.spectral.minimax import default_condition
from orthocond.spectral.newton_schulz import ITERATIONS
from orthocond.spectral.root_solvers import Solver, check_iteration, method_of
from orthocond.spectral.roots import root_by

PoolSolver = Literal["low-rank", "eigh", "newton-schulz", "minimax", "average"]
Normalization = Literal["sqrt", "log", "power"]

RIDGE = 1e-10  # for the root by "eigh" without eps: its gradient at a zero eigenvalue is infinite


def _check(x: Tensor, solver: PoolSolver) -> None:
    """Raise a UserError if x is not a batch of feature maps that the solver can pool."""
    require_floating(x, "an input")
    if x.dim() != 4:
        raise UserError(f"expected an input of shape (B, C, H, W), got {tuple(x.shape)}")
    least, what = (1, "an average") if solver == "average" else (2, "a covariance")
    if x.shape[2:].numel() < least:
        raise UserError(
            f"{what} needs positions, at least {least} per image, got an input of shape "
            f"{tuple(x.shape)}: use larger images or a smaller stride, or pool earlier"
        )


def _check_normalization(
    normalization: Normalization, power: float, solver: PoolSolver, backward: Backward
) -> None:
    """Raise a UserError if there is no such normalization, or not with this solver."""
    if normalization not in get_args(Normalization):
        raise unknown("normalization", normalization, get_args(Normalization))
    if isinstance(power, bool) or not isinstance(power, Real) or not 0 < power < math.inf:
        raise UserError(f"power must be a positive, finite number, got {power!r}")
    if normalization != "power" and power != 0.5:
        raise UserError(
            f"power is for normalization 'power': leave it out for {normalization!r}, got {power}"
        )
    if normalization != "sqrt" and (solver not in ("low-rank", "eigh") or backward != "exact"):
        raise UserError(
            f"normalization {normalization!r} needs solver 'low-rank' or 'eigh' with backward "
            f"'exact', got {solver!r} with {backward!r}: use those, or normalization 'sqrt'"
        )


def _upper(d: int, device: torch.device) -> Tensor:
    """Return the indices (d (d + 1) / 2,) of the upper triangle, by rows, in a flat d x d matrix.

    They are no buffer: one that no state dict holds stays uninitialized after ``to_empty``.
    """
    rows, columns = torch.triu_indices(d, d, device=device)
    return rows * d + columns


class CovarianceRoot(nn.Module):
    """Layer that maps each sample to the square root of the covariance over its positions.

    The logarithm or another power can take the place of the root. The layer is a module of its own
    so that a probe can hook its input.

    Args:
        solver: ``low-rank`` (exact, on the support), ``eigh`` (all d eigenvalues; the root with a
            ridge of 1e-10 if eps is 0), ``minimax`` (matrix products only, exact up to the declared
            condition number, without synchronising the host with the device), ``newton-schulz``
            (a few steps, scaled by the trace) or ``average``, which returns the mean over the
            positions instead of a covariance root.
        backward: backward rule of ``oc.matrix_sqrt`` for the solver ``eigh``. The other solvers
            allow only ``exact``. The gradient of ``raw`` is not finite at equal eigenvalues.
        eps: added to the diagonal of the covariance, in units of the squared features.
        steps: number of steps of ``newton-schulz``.
        condition: declared largest condition number of the covariance plus eps I for ``minimax``,
            1 to 1e12. It is at most 1 + l_max / eps, so the default None, 1e4 / eps but at most
            1e12, is enough for l_max up to 1e4. A sample with a larger one is counted in
            ``outcomes``; its root and gradient are too small in the directions of the
            smallest eigenvalues.
        normalization: ``sqrt``, or ``log`` or ``power``, which need the solver ``low-rank`` or
            ``eigh`` with the backward rule ``exact``. See ``GlobalCovariancePool2d``.
        power: positive exponent p of (P + eps I)^p for ``power``.

    Attributes:
        outcomes: SpectralOutcomes, with one count per sample.

    Raises:
        UserError: the solver, backward rule or normalization is unknown, or the settings can't be
            combined; the input is not (B, d, H, W) of a real floating dtype, or has a single
            position, whose covariance is zero (``average`` accepts one position), or no more
            positions than channels with ``minimax`` or ``log`` and eps = 0.
    """

    def __init__(
        self,
        solver: PoolSolver = "low-rank",
        backward: Backward = "exact",
        eps: float = 0.0,
        steps: int = ITERATIONS,
        condition: float | None = None,
        normalization: Normalization = "sqrt",
        power: float = 0.5,
    ) -> None:
        super().__init__()
        if solver not in get_args(PoolSolver):
            raise unknown("solver", solver, get_args(PoolSolver))
        if backward not in get_args(Backward):
            raise unknown("backward", backward, get_args(Backward))
        if backward != "exact" and solver != "eigh":
            raise UserError(
                f"solver {solver!r} allows only backward 'exact', got {backward!r}: "
                f"use solver 'eigh' for backward {backward!r}"
            )
        require_nonnegative(eps, "eps")
        if solver == "average" and eps:
            raise UserError(f"solver 'average' has no covariance to add eps to: got eps={eps}")
        check_iteration(solver, steps, condition)
        _check_normalization(normalization, power, solver, backward)
        by: Solver = solver if solver in ("minimax", "newton-schulz") else "eigh"
        if solver == "minimax" and condition is None:
            condition = default_condition(eps)
        self.method = method_of(by, backward, steps, condition)
        self.solver: PoolSolver = solver
        self.backward_rule: Backward = backward
        self.eps, self.steps, self.condition = eps, steps, condition
        self.normalization: Normalization = normalization
        self.power = float(power)
        self.outcomes = SpectralOutcomes()

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, d, H, W) to the roots (B, d, d), or to the means (B, d) for ``average``."""
        _check(x, self.solver)
        X = x.flatten(2)  # (B, d, N)
        if self.solver == "average":
            return X.mean(-1)
        if self.solver == "minimax" or self.normalization == "log":
            self._require_positions(X)
        if self.normalization != "sqrt":
            p = self.power if self.normalization == "power" else None
            Q, outcome = covariance_function(X, p, self.eps, by_channels=self.solver == "eigh")
        elif self.solver == "low-rank":
            Q, outcome = covariance_root(X, self.eps)
        else:
            eps = self.eps or (RIDGE if self.solver == "eigh" else 0.0)
            Q, outcome = root_by(_covariance(X), "sqrt", eps, self.method)
        self.outcomes.count(outcome)
        return Q.to(x)

    def _require_positions(self, X: Tensor) -> None:
        """Raise a UserError if X (B, d, N) has a singular covariance by its shape, and eps is 0."""
        d, N = X.shape[1:]
        if self.eps == 0 and d >= N:
            log = self.normalization == "log"
            who = "normalization 'log'" if log else "solver 'minimax'"
            other = "normalization 'sqrt'" if log else "solver 'low-rank'"
            raise UserError(
                f"{who} needs more positions than channels or eps > 0: the covariance of {d} "
                f"channels over {N} positions is singular; use eps, larger images, fewer channels "
                f"or {other}"
            )

    def extra_repr(self) -> str:
        others = f", eps={self.eps}" if self.eps else ""
        others += f", steps={self.steps}" if self.solver == "newton-schulz" else ""
        others += f", condition={self.condition:.3g}" if self.condition else ""
        others += f", normalization={self.normalization!r}" * (self.normalization != "sqrt")
        others += f", power={self.power}" if self.normalization == "power" else ""
        return f"solver={self.solver!r}, backward={self.backward_rule!r}{others}"


def _covariance(X: Tensor) -> Tensor:
    """Return the covariances X J X^T of features (B, d, N) in float64 (eq. 2).

    Autocast does not change float64 products. A sample with NaN or Inf gets a covariance of NaN,
    so that it counts as a failure, and passes no gradient.
    """
    bad = ~X.isfinite().flatten(1).all(1)[:, None, None]
    Y = double(X.masked_fill(bad, 0))
    Y = Y - Y.mean(-1, keepdim=True)
    P = Y @ Y.mT / X.shape[-1]
    return P.masked_fill(bad.to(P.device), torch.nan)


class GlobalCovariancePool2d(nn.Module):
    """Pooling layer that returns the upper triangle of the square root of a covariance.

    A 1x1 convolution (the Pre-SVD layer), batch norm and ReLU reduce the channels to d. Then
    Q = (X J X^T)^(1/2) is computed per sample, with an exact gradient (eqs. 2 and 44), or another
    power or the logarithm. The layer is a drop-in replacement for global average pooling, with
    d (d + 1) / 2 output features instead of one per channel.

    Under autocast the layer computes in float32, and the spectral part always uses float64, on the
    CPU if the device has none (MPS). A sample that can't be decomposed gives zeros, passes no
    gradient, and is counted. It does not affect the other samples. (In training, NaN in the input
    does reach the other samples, through the batch norm.)

    Args:
        in_channels: number of channels of the feature map.
        out_channels: d, the number of rows of the covariance.
        solver: ``low-rank``, ``eigh``, ``minimax`` or ``newton-schulz``, as in ``CovarianceRoot``.
            Choose ``minimax`` for ONNX, or for a step that must not wait for a GPU.
            ``average`` is for comparison: it averages the reduced channels over the positions.
        backward: ``exact``, ``pade``, ``taylor`` or ``raw``; the last three only with ``eigh``.
        eps: added to the diagonal of the covariance. The reduced channels have a variance of about
            1. ``minimax`` needs it if there are no more positions than d.
        steps: number of steps of ``newton-schulz``.
        condition: worst condition number for ``minimax``, as in ``CovarianceRoot``.
        normalization: the function of P + eps I, for P = X J X^T.
            ``sqrt`` is the usual choice: every solver computes it, and its gradient is bounded.
            ``power`` is for comparing exponents; 1 is the plain covariance. The gradient is exact
            below full rank too, but for an exponent below 1/2 it is not bounded. A sample of rank
            below min(d, N - 1) (dead channels) then has directions of infinite slope, which the
            gradient leaves out; without eps, the sample is counted in ``outcomes``.
            ``log`` is for the log-Euclidean metric between covariances. A singular covariance has
            no logarithm: N - 1 < d is refused without eps, and a sample with dead channels gives
            zeros, passes no gradient and is counted. So pass eps, for example 1e-2.
        power: exponent p > 0 of (P + eps I)^p, for ``power`` only.
        device, dtype: of the parameters, as in ``nn.Conv2d``, to build them where they are used.

    Attributes:
        reduction: the 1x1 convolution.
        norm, relu, root: the layers after it.
        outcomes: SpectralOutcomes of ``root``.

    Shape:
        (B, in_channels, H, W) to (B, d (d + 1) / 2), or (B, d) for ``average``. B may be 0.

    Raises:
        UserError: the solver, backward rule or normalization is unknown, or the settings can't be
            combined; the input is not (B, in_channels, H, W) of a real floating dtype, or has a
            single position, whose covariance is zero (``average`` accepts one position), or no more
            positions than d with ``minimax`` or ``log`` and eps = 0. When a derivative is computed:
            it does not exist, or the settings have a first derivative only.

    Source: Li, Xie, Wang and Zuo 2017 (arXiv 1703.08050) for powers; Ionescu, Vantzos and
    Sminchisescu 2015 (arXiv 1509.07838) for the logarithm.

    Example:
        >>> pool = oc.GlobalCovariancePool2d(8, 4)
        >>> pool(torch.randn(2, 8, 3, 3)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        solver: PoolSolver = "low-rank",
        backward: Backward = "exact",
        eps: float = 0.0,
        steps: int = ITERATIONS,
        condition: float | None = None,
        normalization: Normalization = "sqrt",
        power: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.reduction: nn.Module = nn.Conv2d(in_channels, out_channels, 1, bias=False, **where)
        self.norm = nn.BatchNorm2d(out_channels, **where)
        self.relu = nn.ReLU()
        self.root = CovarianceRoot(solver, backward, eps, steps, condition, normalization, power)

    @property
    def outcomes(self) -> SpectralOutcomes:
        """Counters of failed decompositions, one count per sample."""
        return self.root.outcomes

    def _reduction_dtype(self) -> torch.dtype:
        # A parametrized weight is computed anew at each access, so take its parameter.
        dtypes = [p.dtype for p in self.reduction.parameters() if p.is_floating_point()]
        return dtypes[0] if dtypes else self.norm.weight.dtype

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, d (d + 1) / 2), or to (B, d) for ``average``."""
        _check(x, self.root.solver)
        with full_precision(x):
            dtype = self._reduction_dtype()  # a batch norm may stay in float32 in a half network
            x = self.reduction(x.to(dtype)).to(self.norm.weight.dtype)
            Q = self.root(self.relu(self.norm(x))).to(dtype)
            if Q.dim() == 2:
                return Q
            # index_select has a four times faster backward pass than Q[:, rows, columns].
            return Q.flatten(1).index_select(1, _upper(Q.shape[1], Q.device))
