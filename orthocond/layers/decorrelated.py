"""Decorrelated batch normalization: whitening by the covariance of the batch.

Note [Gradient]
    With F = (P + eps I)^(-1/2), A = diag(gamma) F, X centred and G = dl/dY:
        Y = A X + beta,   M = G X^T,   s = G 1,
        dl/dgamma = row sums of F o M,   dl/dbeta = s,   dl/dF = diag(gamma) M,
        dl/dX = A^T (G - s 1^T / n) + (2 / n) (dl/dP) X.
    n, P, and in dl/dX also M and s, are sums over all processes. dl/dP comes from dl/dF by
    ``root_backward``, which is d x d work. X is x - mu, taken as in Note [Shifted moments] of
    ``layers/moments.py``.

Note [Checkpointing]
    All that the backward needs is saved as tensors of the one node. torch.utils.checkpoint frees
    and recomputes those only, and it runs the block's forward once for each call of the engine
    that asks for them: an engine called inside of the backward would count as another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from orthocond.errors import UserError, require_floating
from orthocond.layers.moments import by_group, centred, is_distributed, moments, reduced
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.eigh import Outcome
from orthocond.spectral.roots import Backward, Solver, check_rules, root_backward, root_forward


class Whitening(NamedTuple):
    """What x is whitened with, in float64. A tuple, so that autograd does not look inside."""

    mean: Tensor  # (C,)
    root: Tensor  # (groups, d, d), F, NaN where a matrix failed
    n: Tensor | None = None  # (), samples that mean and F are of; None: they are constants
    factors: tuple[Tensor, ...] = ()  # of F, for root_backward
    rules: tuple[Backward, Solver] = ("exact", "eigh")  # for root_backward
    is_reduced: bool = False  # whether the samples are those of all processes


class _Whiten(torch.autograd.Function):
    # Note [Checkpointing]: every tensor goes through save_for_backward, none is put on ctx.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
        groups, d, _ = by.root.shape
        shift = by.mean.to(x.dtype)
        r = (by.mean - shift).view(groups, d, 1)  # what rounding leaves of the mean
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
        r = (mean - shift).view(groups, d, 1)  # what rounding leaves of the mean
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
    the channels over the batch and its pixels in training, and of running statistics in evaluation.

    A drop-in for ``nn.BatchNorm2d``, which it equals when ``groups == num_features``. It computes
    in float32 under autocast and for half-precision inputs (float64 for float64), decomposes in
    float64, and returns the input's dtype. In training under torch.distributed the moments are
    those of the batches of all processes, and so is the gradient through them; every process must
    then take part in each forward and backward.

    Rounding of the covariance, about 1e-8 of its largest eigenvalue in float32, reaches the output
    and the gradient amplified by 1 / (l_min + eps): an eps that is tiny beside the features costs
    digits. On CUDA, TF32 products (where they are allowed) have a thousand times that rounding.

    Running statistics are moving averages of a covariance that moves with the weights: at a high
    learning rate they are stale, and ``oc.recalibrate`` replaces them. They are float32 at least,
    in a network in half precision too.

    The layer is no ``_BatchNorm`` of torch. So ``SyncBatchNorm.convert_sync_batchnorm`` leaves it
    as it is (it is synchronised already), and ``torch.optim.swa_utils.update_bn`` skips it: call
    ``oc.recalibrate(swa_model, loader)`` on an averaged model.

    Under ``torch.utils.checkpoint`` each forward runs twice, and moves the running statistics
    twice, as those of ``nn.BatchNorm2d``.

    Args:
        num_features: C, the number of channels.
        eps: added to the eigenvalues of the covariance; in units of the squared features.
        momentum: of the running statistics; None for their cumulative average.
        affine: whether there are gamma and beta (C,).
        track_running_stats: whether there are running statistics; without them evaluation takes
            those of the batch.
        groups: whitens this many groups of C / groups channels each on its own.
        solver: ``eigh``, or ``newton-schulz``: five steps, inexact.
        backward: rule of ``oc.matrix_inv_sqrt``: exact, pade, taylor or raw.

    Attributes:
        running_mean, running_covariance: (C,) and (groups, d, d), the latter unbiased.
        outcomes: SpectralOutcomes. A batch with NaN or Inf gives NaN, leaves the running statistics
            as they were and is counted here.

    Shape:
        (B, C, H, W) to (B, C, H, W), contiguous or channels_last.

    Raises:
        UserError: bad arguments; an input that is not (B, C, H, W) of a real floating dtype; in
            training, a batch of fewer than two pixels.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm2d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    weight: nn.Parameter  # these two are None without affine,
    bias: nn.Parameter
    running_mean: Tensor  # and these three without track_running_stats, as in torch
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
        """Mean 0, covariance I and no batch seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_covariance.zero_().diagonal(dim1=-2, dim2=-1).fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Gamma 1, beta 0, and the running statistics as at the start."""
        self.reset_running_stats()
        if self.affine:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert the layer, but the running statistics never to half precision.

        Rounding of a covariance is amplified by 1 / (l_min + eps), and small moves would be lost.
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
        """Move the running statistics towards these by momentum."""
        for running, new in ((self.running_mean, mean), (self.running_covariance, covariance)):
            running.lerp_(new.to(running), momentum)

    def _root(self, covariance: Tensor) -> tuple[Tensor, bool, tuple[Tensor, ...]]:
        """F, all NaN where a matrix failed, whether none did, and the factors of F."""
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
        # A copy: a later step moves the running mean, and this one's gradient has to do with it.
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
