"""Running mean and covariance of a whitening layer, updated without a read by the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class RunningStatistics(nn.Module):
    """Base of a whitening layer: its running statistics, which the subclass registers."""

    track_running_stats: bool
    momentum: float | None
    running_mean: Tensor  # these three are None without track_running_stats, as in torch
    running_covariance: Tensor
    num_batches_tracked: Tensor

    def reset_running_stats(self) -> None:
        """Reset the running statistics to mean 0, covariance I and zero batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_covariance.zero_().diagonal(dim1=-2, dim2=-1).fill_(1)
            self.num_batches_tracked.zero_()

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
    def set_running_stats(
        self, mean: Tensor, covariance: Tensor, momentum: float | Tensor = 1.0
    ) -> None:
        """Move the running statistics towards the given mean and covariance by momentum."""
        for running, new in ((self.running_mean, mean), (self.running_covariance, covariance)):
            by = momentum.to(running.dtype) if isinstance(momentum, Tensor) else momentum
            running.lerp_(new.to(running), by)

    @torch.no_grad()
    def _track(self, mean: Tensor, covariance: Tensor, worked: Tensor) -> None:
        """Update the running statistics by those of a batch, unless it failed."""
        self.num_batches_tracked += worked
        momentum: float | Tensor
        if self.momentum is None:
            momentum = 1 / self.num_batches_tracked.clamp_min(1).double()
        else:
            momentum = self.momentum
        mean = torch.where(worked, mean.to(self.running_mean), self.running_mean)
        covariance = torch.where(
            worked, covariance.to(self.running_covariance), self.running_covariance
        )
        self.set_running_stats(mean, covariance, momentum)
