"""Decorrelated batch normalization: whitening by the covariance of the batch.

Note [Gradient]
    With F = (P + eps I)^(-1/2), A = diag(gamma) F, centred X and G = dl/dY:
        Y = A X + beta,   M = G X^T,   s = G 1,
        dl/dgamma = row sums of F o M,   dl/dbeta = s,   dl/dF = diag(gamma) M,
        dl/dX = A^T (G - s 1^T / n) + (2 / n) (dl/dP) X.
    n and P come from the samples of all processes; in dl/dX, M and s do too. ``root_backward``
    computes dl/dP from dl/dF, with matrices of size d x d only. X = x - mu is computed as in
    Note [Shifted moments] of ``layers/moments.py``.

Note [Checkpointing]
    One autograd node saves all tensors that the backward pass needs. torch.utils.checkpoint frees
    and recomputes only saved tensors. It reruns the forward of the block once for each autograd
    engine call that asks for them, so the backward must not call the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from orthocond.distributed import is_distributed, reduced
from orthocond.errors import UserError, require_floating
from orthocond.layers.moments import by_group, centred, moments
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.eigh import Outcome
from orthocond.spectral.roots import Backward, Solver, check_rules, root_backward, root_forward


class Whitening(NamedTuple):
    """Statistics that whiten x, in float64. Autograd does not track tensors inside a tuple."""

    mean: Tensor  # (C,)
    root: Tensor  # (groups, d, d): F, all NaN for a matrix that failed
    n: Tensor | None = None  # (), number of samples; None if mean and F are constants
    factors: tuple[Tensor, ...] = ()  # factors of F, for root_backward
    rules: tuple[Backward, Solver] = ("exact", "eigh")  # for root_backward
    is_reduced: bool = False  # True if the samples of all processes are included


class _Whiten(torch.autograd.Function):
    # Note [Checkpointing]: save_for_backward saves every tensor; none is an attribute of ctx.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
        groups, d, _ = by.root.shape
        shift = by.mean.to(x.dtype)
        r = (by.mean - shift).view(groups, d, 1)  # rounding error of the shift
        A = weight.double().view(groups, d, 1) * by.root
        b = bias.double().view(groups, d, 1) - A @ r
        A, b = A.to(x.dtype), b.to(x.dtype)
        y = torch.empty_like(x)
        for part, chunk in centred(x, shift):
            for j, (X, Y) in enumerate(by_group(groups, chunk, y[part])):
                Y.copy_(b[j]).baddbmm_(A[j].expand(len(X), d, d), X)
        through_batch = by.n is not None and ctx.needs_input_grad[0]
        of_batch = (by.n, *by.factors) if through_batch else ()
        ctx.save_for_backward(x, weight, by.mean, by.root, *of_batch)
        ctx.rules, ctx.is_reduced = by.rules, by.is_reduced
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, mean, F, *of_batch = ctx.saved_tensors
        groups, d, _ = F.shape
        shift = mean.to(x.dtype)
        r = (mean - shift).view(groups, d, 1)  # rounding error of the shift
        M, s = torch.zeros_like(F), torch.zeros_like(r)
        for part, chunk in centred(x, shift):
            for j, (X, g) in enumerate(by_group(groups, chunk, G[part])):
                M[j] += torch.bmm(g, X.mT).sum(0, dtype=torch.float64)
                s[j] += g.sum((0, 2))[:, None]
        M -= s @ r.mT
        g_weight = (F * M).sum(-1).flatten().to(weight.dtype)
        g_bias = s.flatten().to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, g_weight, g_bias, None
        gamma = weight.double().view(groups, d, 1)
        At = (gamma * F).mT
        out = torch.empty_like(x)
        if not of_batch:
            for j, (g, o) in enumerate(by_group(groups, G, out)):
                torch.bmm(At[j].to(x.dtype).expand(len(x), d, d), g, out=o)
            return out, g_weight, g_bias, None
        n, *factors = of_batch
        if ctx.is_reduced:
            M, s = reduced(M, s)
        S = 2 / n * root_backward(tuple(factors), gamma * M, "inv_sqrt", *ctx.rules)
        b = -(At @ s / n + S @ r)
        At, S, b = At.to(x.dtype), S.to(x.dtype), b.to(x.dtype)
        for part, chunk in centred(x, shift):
            for j, (X, g, o) in enumerate(by_group(groups, chunk, G[part], out[part])):
                o.copy_(b[j]).baddbmm_(S[j].expand(len(X), d, d), X)
                o.baddbmm_(At[j].expand(len(X), d, d), g)
        return out, g_weight, g_bias, None


class DecorrelatedBatchNorm2d(nn.Module):
    """Batch normalization that also decorrelates the channels (ZCA whitening).

    y = gamma (P + eps I)^(-1/2) (x - mu) + beta, with the mean mu and the covariance P (eq. 2) of
    the channels. In training they are computed over the batch and its pixels; in evaluation they
    are the running statistics.

    The layer is a drop-in replacement for ``nn.BatchNorm2d``, and equals it if
    ``groups == num_features``. It computes in float32 under autocast and for half-precision inputs
    (float64 for float64), decomposes in float64, and returns the input's dtype. In training under
    torch.distributed the moments, and the gradient through them, include the batches of all
    processes. So every process must take part in each forward and backward.

    The covariance has a rounding error of about 1e-8 of its largest eigenvalue in float32 (a
    thousand times more with TF32 products on CUDA). Output and gradient amplify it by
    1 / (l_min + eps), so an eps much smaller than the squared features costs digits.

    Running statistics are moving averages of a covariance that changes with the weights. At a high
    learning rate they are outdated: ``oc.recalibrate`` replaces them. They are at least float32,
    also in a half-precision network.

    The layer is not a subclass of torch's ``_BatchNorm``. So
    ``SyncBatchNorm.convert_sync_batchnorm`` does not convert it (it is synchronised already), and
    ``torch.optim.swa_utils.update_bn`` skips it: call ``oc.recalibrate(swa_model, loader)`` on an
    averaged model. Under ``torch.utils.checkpoint`` each forward runs twice and updates the running
    statistics twice, as in ``nn.BatchNorm2d``.

    Args:
        num_features: C, the number of channels.
        eps: added to the eigenvalues of the covariance; in units of the squared features.
        momentum: momentum of the running statistics; None for a cumulative average.
        affine: True to learn gamma and beta (C,).
        track_running_stats: True to keep running statistics. Otherwise evaluation uses the
            statistics of the batch.
        groups: number of channel groups. Each group of C / groups channels is whitened separately.
        solver: ``eigh``, or ``newton-schulz``: five steps, inexact.
        backward: backward rule of ``oc.matrix_inv_sqrt``: exact, pade, taylor or raw.

    Attributes:
        running_mean, running_covariance: (C,) and (groups, d, d); the covariance is unbiased.
        outcomes: SpectralOutcomes. It counts batches with NaN or Inf. They give NaN and do not
            change the running statistics.

    Shape:
        (B, C, H, W) to (B, C, H, W), contiguous or channels_last.

    Raises:
        UserError: an argument is not allowed; the input is not (B, C, H, W) of a real floating
            dtype; in training, the batch has fewer than two pixels.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm2d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    weight: nn.Parameter  # weight and bias are None without affine, as in torch
    bias: nn.Parameter
    running_mean: Tensor  # these three are None without track_running_stats, as in torch
    running_covariance: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-2,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        groups: int = 1,
        solver: Solver = "eigh",
        backward: Backward = "exact",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_rules(solver, backward)
        if num_features < 1 or groups < 1 or num_features % groups:
            raise UserError(f"{num_features} features can't be split into {groups} equal groups")
        if not eps >= 0:
            raise UserError(f"eps must be 0 or more, got {eps}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.groups = affine, track_running_stats, groups
        self.solver: Solver = solver
        self.backward_rule: Backward = backward
        self.outcomes = SpectralOutcomes()
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        parameter = nn.Parameter(torch.empty(num_features, **where)) if affine else None
        self.register_parameter("weight", parameter)
        parameter = nn.Parameter(torch.empty(num_features, **where)) if affine else None
        self.register_parameter("bias", parameter)
        d = num_features // groups
        tracked = track_running_stats
        mean = torch.empty(num_features, device=device, dtype=wide) if tracked else None
        covariance = torch.empty(groups, d, d, device=device, dtype=wide) if tracked else None
        batches = torch.tensor(0, dtype=torch.long, device=device) if tracked else None
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_covariance", covariance)
        self.register_buffer("num_batches_tracked", batches)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Reset the running statistics to mean 0, covariance I and zero batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_covariance.zero_().diagonal(dim1=-2, dim2=-1).fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Reset gamma to 1, beta to 0, and the running statistics to their initial values."""
        self.reset_running_stats()
        if self.affine:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert the layer, but keep the running statistics at least in float32.

        Half precision would lose small updates, and 1 / (l_min + eps) amplifies the rounding.
        """
        before = {name: b for name, b in self.named_buffers() if b.is_floating_point()}
        super()._apply(fn, recurse)
        for name, statistics in before.items():
            after = self.get_buffer(name)
            if after.dtype.itemsize < 4 <= statistics.dtype.itemsize:
                setattr(self, name, statistics.to(after.device, torch.float32))
        return self

    @torch.no_grad()
    def set_running_stats(self, mean: Tensor, covariance: Tensor, momentum: float = 1.0) -> None:
        """Move the running statistics towards the given mean and covariance by momentum."""
        for running, new in ((self.running_mean, mean), (self.running_covariance, covariance)):
            running.lerp_(new.to(running), momentum)

    def _root(self, covariance: Tensor) -> tuple[Tensor, bool, tuple[Tensor, ...]]:
        """Return F (all NaN for a failed matrix), whether no matrix failed, and F's factors."""
        F, outcome, factors = root_forward(covariance, "inv_sqrt", self.eps, self.solver)
        self.outcomes.count(outcome)
        failed = outcome == Outcome.FAILED  # (groups,)
        F = F.masked_fill(failed[:, None, None], float("nan"))
        return F, not bool(failed.any()), factors

    @torch.no_grad()
    def _of_batch(self, x: Tensor) -> Whitening:
        is_reduced = self.training and is_distributed()
        batch = moments(x, self.groups)
        batch = batch.reduced() if is_reduced else batch
        n = int(batch.n)
        if n < 2:
            raise UserError(
                f"expected at least 2 pixels over the batch in training, got {n} from input "
                f"of shape {tuple(x.shape)}"
            )
        mean, covariance = batch.mean(), batch.covariance()
        F, worked, factors = self._root(covariance)
        if self.training and self.track_running_stats and worked:
            self.num_batches_tracked += 1
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.set_running_stats(mean, covariance * (n / (n - 1)), momentum)
        rules = (self.backward_rule, self.solver)
        return Whitening(mean, F, batch.n, factors, rules, is_reduced)

    @torch.no_grad()
    def _of_running(self) -> Whitening:
        F, *_ = self._root(self.running_covariance.double())
        # Copy: a later step changes the running mean, and this step's gradient needs the old one.
        return Whitening(self.running_mean.to(torch.float64, copy=True), F)

    def forward(self, x: Tensor) -> Tensor:
        """Whiten x (B, C, H, W)."""
        require_floating(x, "an input")
        if x.dim() != 4 or x.shape[1] != self.num_features:
            raise UserError(
                f"expected an input of shape (B, {self.num_features}, H, W), got {tuple(x.shape)}"
            )
        dtype = x.dtype
        with torch.autocast(x.device.type, enabled=False):
            x = x if dtype in (torch.float32, torch.float64) else x.float()
            channels_last = x.is_contiguous(memory_format=torch.channels_last)
            x = x if channels_last else x.contiguous()
            use_batch = self.training or not self.track_running_stats
            by = self._of_batch(x.detach()) if use_batch else self._of_running()
            weight = self.weight if self.affine else x.new_ones(self.num_features)
            bias = self.bias if self.affine else x.new_zeros(self.num_features)
            return _Whiten.apply(x, weight, bias, by).to(dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, groups={self.groups}, "
            f"solver={self.solver!r}, backward={self.backward_rule!r}"
        )
