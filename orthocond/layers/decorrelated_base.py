"""The whitening layer, for features of any shape: its settings, statistics and forward."""

from __future__ import annotations

from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn

from orthocond.distributed import is_distributed
from orthocond.errors import (
    DecompositionError,
    UserError,
    require_floating,
    require_nonnegative,
    require_whole,
    unknown,
)
from orthocond.host import double, full_precision
from orthocond.layers.batch_norms import require_plain_forward, require_replaceable
from orthocond.layers.inference.evaluation import is_wrapped
from orthocond.layers.inference.symbolic import one_node
from orthocond.layers.moments import moments
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.layers.running_statistics import Running, RunningStatistics, adopt
from orthocond.layers.shapes import SAMPLES, as_images, from_images, require_shape
from orthocond.layers.whitening import Whitening, whiten
from orthocond.spectral.backward_rules import Backward
from orthocond.spectral.eigh import Outcome
from orthocond.spectral.minimax import default_condition
from orthocond.spectral.newton_schulz import ITERATIONS
from orthocond.spectral.root_solvers import Root, Solver, method_of, root_forward

SETTINGS = ("groups", "solver", "backward", "steps", "condition", "running")
"""Settings that a batch norm does not have."""


class DecorrelatedBatchNorm(RunningStatistics):
    """Base of the three layers. The docstring of DecorrelatedBatchNorm2d describes it."""

    spatial: ClassVar[int]  # 1, 2 or 3, as in the name of the class

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
        running: Running = "covariance",
    ) -> None:
        super().__init__()
        if running not in get_args(Running):
            raise unknown("running", running, get_args(Running))
        require_whole(num_features, "num_features")
        require_whole(groups, "groups")
        if num_features % groups:
            raise UserError(f"{num_features} features can't be split into {groups} equal groups")
        require_nonnegative(eps, "eps")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.groups = affine, track_running_stats, groups
        if solver == "minimax" and condition is None:
            condition = default_condition(eps)
        self.running: Running = running
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
        self._register_statistics(num_features, groups, device, wide)
        self.reset_parameters()

    @classmethod
    def from_batch_norm(cls, bn: nn.Module, **settings: Any) -> Self:
        """Return a layer that equals a trained batch norm in evaluation until it is trained itself.

        Choose it to add whitening to a trained network without a jump in its accuracy.
        ``oc.convert_batch_norm`` does so for layers inside of a network.

        The layer has the eps, momentum and training flag of the batch norm, its running mean, and a
        diagonal running covariance. gamma and beta are the batch norm's own parameters, so an
        optimizer that has them keeps them; a missing beta is zero and frozen. eps is usually 1e-5
        in batch norms. A larger ``layer.eps`` makes training more stable, but changes evaluation.

        Args:
            bn: BatchNorm1d, 2d or 3d, like this class, or a SyncBatchNorm, with running statistics.
            settings: ``groups``, ``solver``, ``backward``, ``steps``, ``condition`` and
                ``running``, as for this class.

        Raises:
            UserError: the module is not such a batch norm, or does more than one; a setting is
                unknown; ``newton-schulz`` has ``running`` other than ``root``, so that it would
                take an inexact root of the running covariance.

        Example:
            >>> bn = torch.nn.BatchNorm2d(3).eval()
            >>> norm, x = oc.DecorrelatedBatchNorm2d.from_batch_norm(bn), torch.randn(2, 3, 4, 4)
            >>> torch.allclose(norm(x), bn(x), atol=1e-6)
            True
        """
        of = require_replaceable(bn, cls.spatial)
        require_plain_forward(of)
        for name in settings:
            if name not in SETTINGS:
                raise unknown("setting", name, SETTINGS)
        if settings.get("solver") == "newton-schulz" and settings.get("running") != "root":
            raise UserError(
                "solver 'newton-schulz' is inexact on a running covariance, so evaluation would "
                "change at once: pass running='root'"
            )
        where = of.running_mean if of.weight is None else of.weight
        layer = cls(
            *(of.num_features, of.eps, of.momentum, of.weight is not None),
            device=where.device,
            dtype=where.dtype,
            **settings,
        )
        adopt(layer, of)
        return layer.train(of.training)

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
            is_root = self.running == "root"
            self._track(mean, root.value if is_root else covariance * (n / (n - 1)), worked)
        return Whitening(mean, root.value, n, root.factors, root.method, is_reduced)

    @torch.no_grad()
    def set_running_stats(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the running statistics to a mean (C,) and a covariance (groups, d, d).

        Raises:
            DecompositionError: the layer keeps a running root, and the covariance has none.
        """
        matrix = covariance
        if self.running == "root":
            root, worked = self._root(double(covariance))
            if not worked:
                raise DecompositionError(
                    "the covariance has no inverse square root, and the running statistics are "
                    "unchanged: pass eps > 0, which is added to its diagonal"
                )
            matrix = root.value
        self._move_running_stats(mean, matrix)

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        """Whiten the input (B, C, ...), which has the name that it has in a batch norm."""
        x = input
        require_floating(x, "an input")
        require_shape(x, self.spatial, self.num_features)
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            with full_precision(x):
                return self.forward(x)
        dtype, shape = x.dtype, x.shape
        x = as_images(x)
        x = x if dtype in (torch.float32, torch.float64) else x.float()
        # vmap does not know the memory format.
        channels_last = not is_wrapped(x) and x.is_contiguous(memory_format=torch.channels_last)
        x = x if channels_last else x.contiguous()
        if self.track_running_stats and not self.training:
            return from_images(self._evaluate(x).to(dtype), shape)
        by = self._of_batch(x.detach(), shape)
        weight = self.weight if self.affine else x.new_ones(self.num_features)
        bias = self.bias if self.affine else x.new_zeros(self.num_features)
        return from_images(whiten(x, weight, bias, by).to(dtype), shape)

    def extra_repr(self) -> str:
        others = f", steps={self.steps}" if self.solver == "newton-schulz" else ""
        others = f", condition={self.condition:.3g}" if self.condition else others
        others += ", running='root'" if self.running == "root" else ""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, groups={self.groups}, "
            f"solver={self.solver!r}, backward={self.backward_rule!r}{others}"
        )
