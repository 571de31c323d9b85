"""Decorrelated batch normalization: whitening by the covariance of the batch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from orthocond.distributed import is_distributed
from orthocond.errors import UserError, require_floating
from orthocond.layers.moments import moments
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.layers.running_statistics import RunningStatistics
from orthocond.layers.shapes import AXES, SAMPLES, as_images, fits, from_images, shapes
from orthocond.layers.whitening import Whitening, whiten
from orthocond.spectral.backward_rules import Backward
from orthocond.spectral.eigh import Outcome
from orthocond.spectral.minimax import default_condition
from orthocond.spectral.newton_schulz import ITERATIONS
from orthocond.spectral.root_solvers import Root, Solver, method_of, root_forward


class DecorrelatedBatchNorm(RunningStatistics):
    """Base of the whitening layers of one, two and three dimensions; its docstring is theirs."""

    spatial: ClassVar[int]  # 1, 2 or 3, as in the name of the class
    weight: nn.Parameter  # weight and bias are None without affine, as in torch
    bias: nn.Parameter

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
        steps: int = ITERATIONS,
        condition: float | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1 or groups < 1 or num_features % groups:
            raise UserError(f"{num_features} features can't be split into {groups} equal groups")
        if not eps >= 0:
            raise UserError(f"eps must be 0 or more, got {eps}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.groups = affine, track_running_stats, groups
        if solver == "minimax" and condition is None:
            condition = default_condition(eps)
        self.solver: Solver = solver
        self.backward_rule: Backward = backward
        self.steps, self.condition = steps, condition
        self.method = method_of(solver, backward, steps, condition)
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

    def reset_parameters(self) -> None:
        """Reset gamma to 1, beta to 0, and the running statistics to their initial values."""
        self.reset_running_stats()
        if self.affine:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _root(self, covariance: Tensor) -> tuple[Root, Tensor]:
        """Return the root, all NaN for a failed matrix, and whether no matrix failed (a 0-d bool).

        Nothing is read by the host here, and in what follows.
        """
        root = root_forward(covariance, "inv_sqrt", self.eps, self.method)
        self.outcomes.count(root.outcome)
        failed = root.outcome == int(Outcome.FAILED)  # (groups,)
        F = root.value.masked_fill(failed[:, None, None], float("nan"))
        return root._replace(value=F), ~failed.any()

    def _require_samples(self, shape: torch.Size, n: Tensor | None) -> None:
        """Raise a UserError if a batch of this shape has too few samples for a covariance.

        n (), the number over all processes if there are others, is on the device. The host reads it
        only if this process alone has too few.
        """
        d = self.num_features // self.groups
        least = d + 1 if self.solver == "minimax" and self.eps == 0 else 2
        count = shape.numel() // shape[1]
        if count < least and n is not None:
            count = int(n)
        if count < least:
            why = (
                f": the covariance of {d} channels is singular with fewer; use a larger batch, "
                "more groups or eps > 0"
            )
            raise UserError(
                f"expected at least {least} {SAMPLES[self.spatial]} over the batch in training, "
                f"got {count} from input of shape {tuple(shape)}{why if least > 2 else ''}"
            )

    @torch.no_grad()
    def _of_batch(self, x: Tensor, shape: torch.Size) -> Whitening:
        is_reduced = self.training and is_distributed()
        batch = moments(x, self.groups)
        batch = batch.reduced() if is_reduced else batch
        n = batch.n
        self._require_samples(shape, n if is_reduced else None)
        mean, covariance = batch.mean(), batch.covariance()
        root, worked = self._root(covariance)
        if self.training and self.track_running_stats:
            self._track(mean, covariance * (n / (n - 1)), worked)
        return Whitening(mean, root.value, n, root.factors, root.method, is_reduced)

    @torch.no_grad()
    def _of_running(self) -> Whitening:
        F = self._root(self.running_covariance.double())[0].value
        # Copy: a later step changes the running mean, and this step's gradient needs the old one.
        return Whitening(self.running_mean.to(torch.float64, copy=True), F)

    def _require_shape(self, x: Tensor) -> None:
        """Raise a UserError if x is not an input of this layer; it names the class that takes x."""
        if fits(x, self.spatial, self.num_features):
            return
        other = next((n for n, axes in AXES.items() if x.dim() in axes and n != self.spatial), None)
        remedy = f": DecorrelatedBatchNorm{other}d takes {shapes(other)}" if other else ""
        raise UserError(
            f"expected an input of shape {shapes(self.spatial, self.num_features)}, "
            f"got {tuple(x.shape)}{remedy}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Whiten x (B, C, ...)."""
        require_floating(x, "an input")
        self._require_shape(x)
        dtype, shape = x.dtype, x.shape
        with torch.autocast(x.device.type, enabled=False):
            x = as_images(x)
            x = x if dtype in (torch.float32, torch.float64) else x.float()
            channels_last = x.is_contiguous(memory_format=torch.channels_last)
            x = x if channels_last else x.contiguous()
            use_batch = self.training or not self.track_running_stats
            by = self._of_batch(x.detach(), shape) if use_batch else self._of_running()
            weight = self.weight if self.affine else x.new_ones(self.num_features)
            bias = self.bias if self.affine else x.new_zeros(self.num_features)
            return from_images(whiten(x, weight, bias, by).to(dtype), shape)

    def extra_repr(self) -> str:
        others = f", steps={self.steps}" if self.solver == "newton-schulz" else ""
        others = f", condition={self.condition:.3g}" if self.condition else others
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, groups={self.groups}, "
            f"solver={self.solver!r}, backward={self.backward_rule!r}{others}"
        )


class DecorrelatedBatchNorm2d(DecorrelatedBatchNorm):
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
        solver: ``eigh``; ``minimax``, matrix products only, as accurate as ``eigh`` up to the
            declared condition number, and without synchronising the host with the device; or
            ``newton-schulz``, a few steps, inexact.
        backward: backward rule of ``oc.matrix_inv_sqrt``: exact, pade, taylor or raw.
        steps: number of steps of ``newton-schulz``.
        condition: declared largest condition number of P + eps I for ``minimax``, 1 to 1e12. It is
            at most 1 + l_max / eps, so the default None, 1e4 / eps but at most 1e12, is enough for
            l_max up to 1e4. It sets the number of steps: 9 for 1e6, and one more for each factor
            of about 10. A larger condition number is counted in ``outcomes``; the whitening is then
            incomplete in the directions of the smallest eigenvalues.

    Attributes:
        running_mean, running_covariance: (C,) and (groups, d, d); the covariance is unbiased.
        outcomes: SpectralOutcomes. It counts batches with NaN or Inf. They give NaN and do not
            change the running statistics.

    Shape:
        (B, C, H, W) to (B, C, H, W), contiguous or channels_last.

    Raises:
        UserError: an argument is not allowed; the input is not (B, C, H, W) of a real floating
            dtype; in training, the batch has fewer than two pixels, or with ``minimax`` and eps = 0
            no more pixels than channels in a group.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm2d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 2


class DecorrelatedBatchNorm1d(DecorrelatedBatchNorm):
    """Decorrelated batch normalization of vectors or sequences, in place of ``nn.BatchNorm1d``.

    Arguments, attributes and errors are those of ``DecorrelatedBatchNorm2d``. The covariance is
    that of the channels over the batch, or over the batch and the positions of its sequences.

    Shape:
        (B, C) to (B, C), or (B, C, L) to (B, C, L).

    Example:
        >>> norm = oc.DecorrelatedBatchNorm1d(3, eps=1e-5, affine=False)
        >>> torch.allclose(norm(torch.randn(64, 3)).mT.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 1


class DecorrelatedBatchNorm3d(DecorrelatedBatchNorm):
    """Decorrelated batch normalization of volumes or videos, in place of ``nn.BatchNorm3d``.

    Arguments, attributes and errors are those of ``DecorrelatedBatchNorm2d``. The covariance is
    that of the channels over the batch and all positions.

    Shape:
        (B, C, D, H, W) to (B, C, D, H, W), contiguous or channels_last_3d.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm3d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 2, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 3
