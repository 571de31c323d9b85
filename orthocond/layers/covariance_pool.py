"""Global covariance pooling: the square root of the covariance of a feature map (eq. 44)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from orthocond.errors import UserError, require_floating, unknown
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.lowrank import covariance_root
from orthocond.spectral.roots import Backward, root

PoolSolver = Literal["low-rank", "eigh", "newton-schulz", "average"]

RIDGE = 1e-10  # of the full path, where the gradient at a zero eigenvalue is infinite without it


def _check(x: Tensor, solver: PoolSolver) -> None:
    """Raise a UserError where x is no batch of feature maps that the solver can pool."""
    require_floating(x, "an input")
    if x.dim() != 4:
        raise UserError(f"expected an input of shape (B, C, H, W), got {tuple(x.shape)}")
    least, what = (1, "an average") if solver == "average" else (2, "a covariance")
    if x.shape[2:].numel() < least:
        raise UserError(
            f"{what} needs positions, at least {least} per image, got an input of shape "
            f"{tuple(x.shape)}: use larger images or a smaller stride, or pool earlier"
        )


def _upper(d: int, device: torch.device) -> Tensor:
    """Indices (d (d + 1) / 2,) of the upper triangle, by rows, in a flattened d x d matrix.

    They are made when needed: a buffer would be empty after ``to_empty`` or on the meta device,
    since no state dict has it.
    """
    rows, columns = torch.triu_indices(d, d, device=device)
    return rows * d + columns


class CovarianceRoot(nn.Module):
    """The square root of the covariance of each sample's positions; a probe hooks its input.

    Args:
        solver: ``low-rank`` (exact, on the support), ``eigh`` (all d eigenvalues, with a ridge of
            1e-10), ``newton-schulz`` (five steps, scaled by the trace) or ``average``: no
            covariance, but the mean over the positions.
        backward: rule of ``oc.matrix_sqrt`` on the ``eigh`` path; the others have their own.
            ``raw`` is not finite at equal eigenvalues.

    Attributes:
        outcomes: SpectralOutcomes, counted per sample.

    Raises:
        UserError: bad settings; an input that is not (B, d, H, W) of a real floating dtype, or that
            has a single position, whose covariance is zero (``average`` takes it).
    """

    def __init__(self, solver: PoolSolver = "low-rank", backward: Backward = "exact") -> None:
        super().__init__()
        if solver not in get_args(PoolSolver):
            raise unknown("solver", solver, get_args(PoolSolver))
        if backward not in get_args(Backward):
            raise unknown("backward", backward, get_args(Backward))
        if backward != "exact" and solver != "eigh":
            raise UserError(
                f"solver {solver!r} has one backward, got {backward!r}: use solver 'eigh' with it"
            )
        self.solver: PoolSolver = solver
        self.backward_rule: Backward = backward
        self.outcomes = SpectralOutcomes()

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, H, W) to (B, d, d), or (B, d) for ``average``."""
        _check(x, self.solver)
        X = x.flatten(2)  # (B, d, N)
        if self.solver == "average":
            return X.mean(-1)
        if self.solver == "low-rank":
            Q, outcome = covariance_root(X)
        elif self.solver == "eigh":
            Q, outcome = root(_covariance(X), "sqrt", self.backward_rule, RIDGE)
        else:
            Q, outcome = root(_covariance(X), "sqrt", solver="newton-schulz")
        self.outcomes.count(outcome)
        return Q.to(x.dtype)

    def extra_repr(self) -> str:
        """The settings."""
        return f"solver={self.solver!r}, backward={self.backward_rule!r}"


def _covariance(X: Tensor) -> Tensor:
    """X J X^T of features (B, d, N) (eq. 2), in float64, which autocast leaves alone.

    A sample that is not finite is cut off from the gradient and gives NaN, so that it is counted.
    """
    bad = ~X.isfinite().flatten(1).all(1)[:, None, None]
    Y = torch.where(bad, 0, X).double()
    Y = Y - Y.mean(-1, keepdim=True)
    P = Y @ Y.mT / X.shape[-1]
    return P.masked_fill(bad, torch.nan)


class GlobalCovariancePool2d(nn.Module):
    """Pools a feature map to the upper triangle of its covariance's square root.

    A 1x1 convolution (the Pre-SVD layer), batch norm and ReLU reduce the channels; then
    Q = (X J X^T)^(1/2) per sample, with an exact gradient (eqs. 2 and 44). A drop-in for
    global average pooling, with out (out + 1) / 2 features instead of the channels.

    It computes in float32 under autocast, with the spectral part in float64. A sample that can't
    be decomposed gives zeros, passes no gradient, and is counted; the others do not notice. (In
    training, NaN in the input itself reaches them before that, through the batch norm.)

    Args:
        in_channels: of the feature map.
        out_channels: d, of the covariance.
        solver: ``low-rank``, ``eigh``, ``newton-schulz``, or ``average`` for comparison: the same
            reduction, averaged.
        backward: exact, pade, taylor or raw; the last three with ``eigh`` only.

    Attributes:
        reduction: the 1x1 convolution. norm, relu, root: what follows it.
        outcomes: SpectralOutcomes of the root.

    Shape:
        (B, in_channels, H, W) to (B, d (d + 1) / 2), or (B, d) for ``average``. B may be 0.

    Raises:
        UserError: an unknown solver or backward, or a backward that the solver has not; an input
            that is not (B, in_channels, H, W) of a real floating dtype, or that has a single
            position, whose covariance is zero (``average`` takes it).

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
    ) -> None:
        super().__init__()
        self.reduction: nn.Module = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.root = CovarianceRoot(solver, backward)

    @property
    def outcomes(self) -> SpectralOutcomes:
        """How the decompositions ended, per sample."""
        return self.root.outcomes

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out (out + 1) / 2), or (B, out) for ``average``."""
        _check(x, self.root.solver)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.norm.weight.dtype)
            Q = self.root(self.relu(self.norm(self.reduction(x))))
            if Q.dim() == 2:
                return Q
            # The backward of Q[:, rows, columns] is four times slower than that of index_select.
            return Q.flatten(1).index_select(1, _upper(Q.shape[1], Q.device))
