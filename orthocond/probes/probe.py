"""Probe that records the conditioning of a layer's features from a running model.

``covariance.py`` computes the covariances, and ``spectral/conditioning.py`` their condition numbers
and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils.module_tracker import ModuleTracker

from orthocond.distributed import gathered
from orthocond.errors import UserError, require_nonnegative, require_whole, unknown
from orthocond.layers.recalibration import unwrapped
from orthocond.probes.channels import check_channels, features
from orthocond.probes.covariance import batch_covariance, sample_covariances
from orthocond.probes.rank import structural_rank as structural_rank_of
from orthocond.probes.target import find_layer, warn_of_no_forward
from orthocond.spectral.conditioning import (
    CONSTANTS,
    MEASURED,
    Conditioning,
    as_record,
    measures,
    rank_tolerance,
)
from orthocond.spectral.spectra import covariance_eigenvalues

Side = Literal["input", "output"]


@dataclass(frozen=True)
class ProbeRecord:
    """Conditioning of a layer's features in one forward pass.

    Attributes:
        step: the training step.
        phase: ``train`` or ``eval``.
        samples: number of covariances: 1 for a covariance over the batch, else one per sample.
        median: median of each field over the covariances. For an even number it is the lower of
            the two middle values, so it is always a measured value.
        min, max: minimum and maximum of each field over the covariances.
    """

    step: int
    phase: str
    samples: int
    median: Conditioning
    min: Conditioning
    max: Conditioning

    def row(self) -> dict[str, Any]:
        """Return the record as a row of conditioning.csv, without the epoch."""
        median, low, high = asdict(self.median), asdict(self.min), asdict(self.max)
        row = {"phase": self.phase, "step": self.step, "samples": self.samples}
        for name in MEASURED:
            row |= {name: median[name], f"{name}_min": low[name], f"{name}_max": high[name]}
        return row | {name: median[name] for name in CONSTANTS}


def _rank(rank: int | nn.Module | None, samples: int) -> int | None:
    """Return a rank that may be given as the layer that determines it."""
    return structural_rank_of(rank, samples) if isinstance(rank, nn.Module) else rank


class ConditioningProbe:
    """Probe that records the conditioning of a layer's features from a running model.

    The covariance is accumulated in float64, over batch and pixels or per sample. Under
    torch.distributed it covers the global batch, and every process must run the same forwards.

    The probe records every ``every``-th training step, and every ``every``-th batch of an
    evaluation, starting with the first. By default each training forward counts as one step. Once
    you set ``probe.step``, the probe uses your step numbers instead and stops counting. If a step
    then has several forwards (gradient accumulation), the probe records the first. A forward that
    ``torch.utils.checkpoint`` repeats in the backward pass is not recorded, and is no step.

    Args:
        model: any module, also inside DistributedDataParallel or torch.compile. Attach the probe
            before the first compiled forward: compiled code does not call hooks attached later. The
            probe breaks the graph, so a model compiled with ``fullgraph=True`` raises torch's
            error, which names the probe.
        layer: a name from ``model.named_modules()``. Name the meta-layer to probe its input, or the
            Pre-SVD layer to probe its output (see ``side``).
        every: number of steps from one record to the next.
        per_sample: True for one covariance per sample over its own positions, as in covariance
            pooling. The record then holds the median and the range over the batch.
        eps: value that the layer adds to the diagonal, for ``kappa_eps``.
        structural_rank: the largest rank that the architecture allows, or the Pre-SVD layer from
            which the function ``structural_rank`` computes it.
        common_rank: r of the field ``kappa_common``, to compare layers whose ranks differ; or a
            layer from which the function ``structural_rank`` computes it.
        side: ``input`` or ``output`` of the layer.
        channel_dim: the channel dimension, such as 1 or -1. None derives it from the layer's type:
            1 for convolutions, batch, instance and group norms, pooling and the layers of this
            package; -1 for nn.Linear, nn.LayerNorm, nn.RMSNorm and nn.Embedding. For any other
            layer it is required.

    Attributes:
        records: list of ProbeRecord, so far.
        step: the training step of the next forward.

    Raises:
        UserError: the layer or side is unknown, ``every`` is below 1, ``eps`` is negative or not
            finite, ``channel_dim`` is missing for a layer that requires it, or the layer is the
            ``out_proj`` of attention, which is never called; in a forward, the features are not a
            floating-point tensor (B, d, ...), or their channel dimension has another size than the
            layer defines; ``with`` gets a probe that is closed.

    Warns:
        UserWarning: the layer is inside a compiled module; or, on closing, no forward called the
            probe although a module was compiled.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.BatchNorm2d(64))
        >>> with ConditioningProbe(model, "1", structural_rank=model[0]) as probe:
        ...     y = model(torch.randn(2, 3, 16, 16))
        >>> probe.records[0].median.rank, probe.records[0].median.structural_rank
        (27, 27)
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        every: int = 10,
        per_sample: bool = False,
        eps: float = 0.0,
        structural_rank: int | nn.Module | None = None,
        side: Side = "input",
        channel_dim: int | None = None,
        common_rank: int | nn.Module | None = None,
    ) -> None:
        require_whole(every, "every")
        require_nonnegative(eps, "eps")
        if side not in get_args(Side):
            raise unknown("side", side, get_args(Side))
        if isinstance(common_rank, int | float):
            require_whole(common_rank, "common_rank")
        for rank in (structural_rank, common_rank):
            _rank(rank, samples=1)  # raise now, not in the first forward
        module = find_layer(model, layer)
        check_channels(unwrapped(module), channel_dim)
        self.layer, self.side, self.channel_dim = layer, side, channel_dim
        self.every, self.per_sample, self.eps = every, per_sample, eps
        self.structural_rank, self.common_rank = structural_rank, common_rank
        self.records: list[ProbeRecord] = []
        self._step, self._counts_steps = 0, True
        self._last_step: int | None = None  # step of the last training forward
        self._eval_batches = 0  # number of batches since the last training forward
        self._called, self._closed = False, False
        if side == "input":
            self._handle = module.register_forward_pre_hook(self._on_input, with_kwargs=True)
        else:
            self._handle = module.register_forward_hook(self._on_output)

    @property
    def step(self) -> int:
        """Training step that the next record gets; it counts forwards until it is set."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step, self._counts_steps = step, False

    def take(self) -> list[ProbeRecord]:
        """Return the records so far and remove them from the probe."""
        records, self.records = self.records, []
        return records

    def close(self) -> None:
        """Remove the probe from the model and keep the records."""
        if not self._called and not self._closed:
            warn_of_no_forward(self.layer)
        self._leave()

    def _leave(self) -> None:
        self._handle.remove()
        self._closed = True  # compiled code still calls the removed hook

    def __enter__(self) -> Self:
        if self._closed:
            raise UserError(
                f"the probe of layer {self.layer!r} is closed and would record nothing: make a new "
                "ConditioningProbe"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            self._leave()

    def _on_input(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from orthocond.probes.eager import eagerly

        eagerly(self._on_forward, layer, (*args, *kwargs.values()))

    def _on_output(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        from orthocond.probes.eager import eagerly

        eagerly(self._on_forward, layer, output if isinstance(output, Sequence) else (output,))

    def _on_forward(self, layer: nn.Module, values: Sequence[Any]) -> None:
        self._called = True
        repeated = ModuleTracker().is_bw  # by torch.utils.checkpoint, in the backward pass
        if self._closed or repeated:
            return
        step = self._step
        if layer.training:
            due = step % self.every == 0 and step != self._last_step
            self._last_step, self._eval_batches = step, 0
            self._step += self._counts_steps
        else:
            due = self._eval_batches % self.every == 0
            self._eval_batches += 1
        if due:
            x = features(unwrapped(layer), values, self.side, self.channel_dim)
            self._record(step, "train" if layer.training else "eval", x)

    @torch.no_grad()
    def _record(self, step: int, phase: str, x: Tensor) -> None:
        if self.per_sample:
            l, n = gathered(covariance_eigenvalues(sample_covariances(x))), x.shape[-1]
        else:
            P, n = batch_covariance(x)
            l = covariance_eigenvalues(P).unsqueeze(0)  # (1, d)
        if n == 0 or len(l) == 0:
            return
        d = x.shape[1]
        structural, common = _rank(self.structural_rank, n), _rank(self.common_rank, n)
        if common is not None:
            require_whole(common, "common_rank", least=0, most=d)  # a single sample has rank 0
        tolerance = rank_tolerance(d, feature_dtype=x.dtype)
        found = measures(l, tolerance, self.eps, common)
        fields = torch.stack(list(found.values())).cpu()  # (9, samples)
        median, low, high = (
            as_record(
                dict(zip(MEASURED, values.tolist(), strict=True)),
                tolerance,
                structural,
                d,
                common or None,
            )
            for values in (fields.median(1).values, fields.amin(1), fields.amax(1))
        )
        self.records.append(ProbeRecord(step, phase, len(l), median, low, high))
