"""Running statistics of a whitening layer, updated without a read by the host.

Note [Running root]
    A whitening layer can average the covariance P of each batch, and take the root of the average,
    or average the roots F = (P + eps I)^(-1/2) themselves, as the paper's released code and
    IterNorm do. The average root is at least the root of the average covariance, because the
    inverse square root is operator convex (Jensen). So while the eigenvectors rotate, averaged
    roots amplify more what leaks into the small directions: they go stale sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from orthocond.host import double, has_float64
from orthocond.layers.inference.evaluation import (
    Cache,
    exported_root,
    in_transform,
    is_derived,
    is_exported,
    is_traced,
    whiten_by_constants,
)
from orthocond.layers.moments import CHUNK
from orthocond.layers.whitening import Whitening, whiten
from orthocond.spectral.eigh import eigh
from orthocond.spectral.root_solvers import Method, Root, Solver

Running = Literal["covariance", "root"]


def _widen_buffers(layer: nn.Module) -> None:
    """Convert running statistics of half precision to float32."""
    for name, statistics in list(layer.named_buffers()):
        if statistics.is_floating_point() and statistics.dtype.itemsize < 4:
            setattr(layer, name, statistics.float())


def _empty_caches(layer: RunningStatistics) -> None:
    """Empty the caches, since torch can't swap the contents of tensors with weak references."""
    layer._roots, layer._maps = Cache(), Cache()


class RunningStatistics(nn.Module):
    """Base of a whitening layer: its running statistics."""

    eps: float
    running: Running
    track_running_stats: bool
    momentum: float | None
    running_mean: Tensor  # these are None without track_running_stats, as in torch
    running_covariance: Tensor  # None if running is "root"
    running_root: Tensor  # None if running is "covariance"
    num_batches_tracked: Tensor
    affine: bool
    weight: nn.Parameter  # weight and bias are None without affine, as in torch
    bias: nn.Parameter
    solver: Solver
    method: Method

    def __init__(self) -> None:
        super().__init__()
        self._roots, self._maps = Cache(), Cache()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, as for any module."""
        self._roots.distrust()
        self._maps.distrust()
        return super().train(mode)

    def _register_statistics(
        self, channels: int, groups: int, device: torch.device | str | None, dtype: torch.dtype
    ) -> None:
        """Register the buffers, uninitialized."""
        d = channels // groups
        shapes: dict[str, tuple[int, ...]] = {
            "running_mean": (channels,),
            "running_covariance": (groups, d, d),
            "running_root": (groups, d, d),
        }
        unused = "running_covariance" if self.running == "root" else "running_root"
        for name, shape in shapes.items():
            held = self.track_running_stats and name != unused
            self.register_buffer(
                name, torch.empty(shape, device=device, dtype=dtype) if held else None
            )
        tracked = self.track_running_stats
        batches = torch.tensor(0, dtype=torch.long, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", batches)

    @property
    def running_matrix(self) -> Tensor:
        """The running covariance or the running root (groups, d, d): the one that is averaged."""
        return self.running_root if self.running == "root" else self.running_covariance

    def reset_running_stats(self) -> None:
        """Reset the running statistics to mean 0, covariance or root I, and zero batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_matrix.zero_().diagonal(dim1=-2, dim2=-1).fill_(1)
            self.num_batches_tracked.zero_()

    def _root(self, covariance: Tensor) -> tuple[Root, Tensor]:
        raise NotImplementedError

    @property
    def _host_may_wait(self) -> bool:
        device = self.running_matrix.device
        return self.solver == "eigh" or device.type == "cpu" or not has_float64(device)

    def root_of_running(self) -> Tensor:
        """Return the inverse root (groups, d, d) that evaluation uses, in float64.

        It is NaN for a matrix that has none. It must not be changed in place.
        """
        P = self.running_matrix
        if self.running == "root":
            return double(P.detach().clone())  # a later step changes the running root
        if is_exported():
            return exported_root(double(P), "inv_sqrt", self.eps, self.method)
        if is_traced():
            return self._root(double(P))[0].value
        return self._roots.get(
            lambda P, _: self._root(double(P))[0].value,
            (P,),
            P.dtype,
            self._host_may_wait,
            (self.eps, self.method),
        )

    def _running_map(self, dtype: torch.dtype) -> Tensor:
        """Return diag(gamma) times the root (groups, d, d), differentiable in gamma."""
        weight, P = self.weight, self.running_matrix

        def scaled(*_: object) -> Tensor:
            F = self.root_of_running()
            return (F if weight is None else double(weight).view(*F.shape[:2], 1) * F).to(
                P.device, dtype
            )

        if is_traced() or (weight is not None and is_derived(weight)):
            return scaled()
        sources = (P,) if weight is None else (P, weight)
        settings = (self.eps, self.method)
        return self._maps.get(scaled, sources, dtype, self._host_may_wait, settings)

    def _evaluate(self, x: Tensor) -> Tensor:
        """Return the whitened images x (B, C, H, W), float32 or float64."""
        mean = self.running_mean
        bias = self.bias if self.affine else torch.zeros_like(mean)
        # A trace comes first: reading the size would guard the graph of an export by it.
        plain = is_traced() or x.numel() <= CHUNK or x.device.type != "cpu"
        if plain or in_transform() or forward_ad._current_level >= 0:
            return whiten_by_constants(x, self._running_map(x.dtype), bias, mean)
        weight = self.weight if self.affine else torch.ones_like(mean)
        # Copy: a later step changes the running mean, and this step's gradient needs the old one.
        by = Whitening(mean.to(torch.float64, copy=True), self.root_of_running())
        return whiten(x, weight, bias, by)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert the layer, but keep the running statistics at least in float32.

        Half precision would lose small updates, and 1 / (l_min + eps) amplifies the rounding.
        """
        _empty_caches(self)
        before = {name: b for name, b in self.named_buffers() if b.is_floating_point()}
        super()._apply(fn, recurse)
        for name, statistics in before.items():
            after = self.get_buffer(name)
            if after.dtype.itemsize < 4 <= statistics.dtype.itemsize:
                setattr(self, name, statistics.to(after.device, torch.float32))
        return self

    @torch.no_grad()
    def _move_running_stats(
        self, mean: Tensor, matrix: Tensor, momentum: float | Tensor = 1.0
    ) -> None:
        """Move the running mean and the running matrix towards the given ones by momentum."""
        for running, new in ((self.running_mean, mean), (self.running_matrix, matrix)):
            by = momentum.to(running) if isinstance(momentum, Tensor) else momentum
            running.lerp_(new.to(running), by)

    @torch.no_grad()
    def _track(self, mean: Tensor, matrix: Tensor, worked: Tensor) -> None:
        """Update the running statistics by those of a batch, unless it failed."""
        worked = worked.to(self.running_mean.device)
        self.num_batches_tracked += worked
        momentum: float | Tensor
        if self.momentum is None:
            momentum = 1 / double(self.num_batches_tracked.clamp_min(1))
        else:
            momentum = self.momentum
        mean = torch.where(worked, mean.to(self.running_mean), self.running_mean)
        matrix = torch.where(worked, matrix.to(self.running_matrix), self.running_matrix)
        self._move_running_stats(mean, matrix, momentum)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load the layer's tensors; convert a running covariance to a root, or a root to it.

        The running statistics are at least float32, also with ``assign`` and a state in half
        precision.
        The tensors of a batch norm are an error with or without ``strict``: without it, torch would
        load the mean and ignore the variance.
        """
        _empty_caches(self)
        own, other = "running_covariance", "running_root"
        if self.running == "root":
            own, other = other, own
        if self.track_running_stats and prefix + "running_var" in state_dict:
            kind = type(self).__name__
            error_msgs.append(
                f"layer {prefix.removesuffix('.')!r} is a {kind} and the state dict is that of a "
                "batch norm, with running_var: load it into the network with batch norms, then "
                f"convert them by oc.convert_batch_norm(model, layers) or {kind}.from_batch_norm"
            )
            return
        if self.track_running_stats and prefix + own not in state_dict:
            held = state_dict.pop(prefix + other, None)
            if held is not None:
                state_dict[prefix + own] = self._converted(held)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        _widen_buffers(self)  # ``assign`` puts the tensors of the state in their place

    def _converted(self, matrix: Tensor) -> Tensor:
        """Return the root of a running covariance (groups, d, d), or the covariance of a root."""
        like, matrix = matrix, double(matrix)
        ridge = self.eps * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        if self.running == "root":
            l, U, _ = eigh(matrix + ridge, strict=True)
            return ((U * l.rsqrt().unsqueeze(-2)) @ U.mT).to(like)
        l, U, _ = eigh(matrix, strict=True)
        return ((U * l.pow(-2).unsqueeze(-2)) @ U.mT - ridge).to(like)


@torch.no_grad()
def adopt(layer: RunningStatistics, bn: nn.Module) -> None:
    """Give a layer the parameters of a batch norm with C channels, and a copy of its statistics."""
    buffers = dict(bn.named_buffers())
    d = layer.running_matrix.shape[-1]
    variance = double(buffers["running_var"]).view(-1, d)  # (groups, d)
    if layer.running == "root":
        variance = (variance + layer.eps).rsqrt()
    layer.running_mean.copy_(buffers["running_mean"])
    layer.running_matrix.copy_(torch.diag_embed(variance))
    if "num_batches_tracked" in buffers:  # it is None in a few old models
        layer.num_batches_tracked.copy_(buffers["num_batches_tracked"])
    parameters = dict(bn.named_parameters())
    if "weight" in parameters:
        layer.weight = parameters["weight"]
        if "bias" in parameters:
            layer.bias = parameters["bias"]
        else:
            layer.get_parameter("bias").requires_grad_(False)
