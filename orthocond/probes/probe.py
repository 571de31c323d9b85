"""How well conditioned a layer's features are: the probe that records it from a live model.

The numbers are those of ``spectral/conditioning.py``, of the covariances of ``covariance.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orthocond.errors import UserError, nearest
from orthocond.probes.covariance import batch_covariance, gathered, sample_covariances
from orthocond.probes.rank import structural_rank
from orthocond.spectral.conditioning import (
    MEASURED,
    Conditioning,
    as_record,
    covariance_eigenvalues,
    measures,
    rank_tolerance,
)

Side = Literal["input", "output"]
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)  # layers whose channels are the last dimension


@dataclass(frozen=True)
class ProbeRecord:
    """What the probe saw in one forward pass.

    Attributes:
        step: the training step.
        phase: ``train`` or ``eval``.
        samples: covariances that the fields are over: 1 for that of a batch.
        median: field by field over the samples; of an even number the lower of the middle two, so
            that it is a value that occurred.
        min, max: field by field.
    """

    step: int
    phase: str
    samples: int
    median: Conditioning
    min: Conditioning
    max: Conditioning

    def row(self) -> dict[str, Any]:
        """The record as a row of conditioning.csv, but for its epoch."""
        median, low, high = asdict(self.median), asdict(self.min), asdict(self.max)
        row = {"phase": self.phase, "step": self.step, "samples": self.samples}
        for name in MEASURED:
            row |= {name: median[name], f"{name}_min": low[name], f"{name}_max": high[name]}
        return row | {name: median[name] for name in ("rank_tol", "structural_rank")}


def _find(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise UserError(
            f"unknown layer {name!r} of {type(model).__name__}: allowed are the names in "
            f"model.named_modules(){nearest(name, filter(None, modules))}"
        )
    return modules[name]


def _features(layer: nn.Module, values: Sequence[Any]) -> Tensor:
    """The first tensor among a layer's inputs or outputs, as samples (B, d, N)."""
    x = next((v for v in values if isinstance(v, Tensor)), None)
    if x is None or x.dim() < 2 or not x.is_floating_point():
        found = "no tensor" if x is None else f"{tuple(x.shape)} of {x.dtype}"
        raise UserError(
            f"the probed {type(layer).__name__} has {found}: "
            "allowed are floating-point features (B, d, ...)"
        )
    if isinstance(layer, CHANNELS_LAST):
        x = x.movedim(-1, 1)
    return x.unsqueeze(-1) if x.dim() == 2 else x.flatten(2)


class ConditioningProbe:
    """Records the conditioning of a layer's features from a running model.

    The covariance is that of the features as they come, accumulated in float64: over batch and
    pixels, or per sample. Under torch.distributed it is of the global batch, and every process must
    run the same forwards.

    A record is taken in every ``every``-th training step, and in every ``every``-th batch of an
    evaluation, beginning with its first. The probe counts training forwards, until someone sets
    ``probe.step``: from then on steps are what they are told, and of several forwards in one step
    (gradient accumulation) the first is recorded.

    Args:
        model: any module; a DistributedDataParallel wrapper is looked through.
        layer: a name from ``model.named_modules()``: the meta-layer for its input, the Pre-SVD
            layer for its output.
        every: steps between two records.
        per_sample: the covariance of each sample over its own positions, as pooling takes it; the
            record then has the median and the range over the batch.
        eps: what the layer adds to the diagonal, for ``kappa_eps``.
        structural_rank: the rank that the architecture allows, or the Pre-SVD layer to take it
            from (the function of that name).
        side: ``input`` or ``output`` of the layer. Channels are dimension 1, and the last one for
            nn.Linear and nn.LayerNorm.

    Attributes:
        records: of ProbeRecord, so far.
        step: the training step that the next forward belongs to.

    Raises:
        UserError: unknown layer or side, ``every`` below 1; in a forward, features that are no
            floating-point tensor (B, d, ...).

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
    ) -> None:
        if every < 1:
            raise UserError(f"every is {every!r}: allowed are whole numbers from 1")
        if side not in get_args(Side):
            raise UserError(f"unknown side {side!r}: allowed are {', '.join(get_args(Side))}")
        if isinstance(model, DistributedDataParallel):
            model = model.module
        self.every, self.per_sample, self.eps = every, per_sample, eps
        self.structural_rank = structural_rank
        self.records: list[ProbeRecord] = []
        self._step, self._counts_steps = 0, True
        self._last_step: int | None = None  # of the last training forward
        self._eval_batches = 0  # since the last training forward
        module = _find(model, layer)
        if side == "input":
            self._handle = module.register_forward_pre_hook(self._on_input, with_kwargs=True)
        else:
            self._handle = module.register_forward_hook(self._on_output)

    @property
    def step(self) -> int:
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step, self._counts_steps = step, False

    def take(self) -> list[ProbeRecord]:
        """The records so far, which are then forgotten."""
        records, self.records = self.records, []
        return records

    def close(self) -> None:
        """Leave the model; the records stay."""
        self._handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _on_input(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._on_forward(layer, (*args, *kwargs.values()))

    def _on_output(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._on_forward(layer, output if isinstance(output, Sequence) else (output,))

    def _on_forward(self, layer: nn.Module, values: Sequence[Any]) -> None:
        step = self._step
        if layer.training:
            due = step % self.every == 0 and step != self._last_step
            self._last_step, self._eval_batches = step, 0
            self._step += self._counts_steps
        else:
            due = self._eval_batches % self.every == 0
            self._eval_batches += 1
        if due:
            self._record(step, "train" if layer.training else "eval", _features(layer, values))

    @torch.no_grad()
    def _record(self, step: int, phase: str, x: Tensor) -> None:
        if self.per_sample:
            l, n = gathered(covariance_eigenvalues(sample_covariances(x))), x.shape[-1]
        else:
            P, n = batch_covariance(x)
            l = covariance_eigenvalues(P).unsqueeze(0)  # (1, d)
        if n == 0 or len(l) == 0:
            return
        structural = self.structural_rank
        if isinstance(structural, nn.Module):
            structural = structural_rank(structural, n)
        d = x.shape[1]
        tolerance = rank_tolerance(d, feature_dtype=x.dtype)
        fields = torch.stack(list(measures(l, tolerance, self.eps).values())).cpu()  # (8, samples)
        median, low, high = (
            as_record(dict(zip(MEASURED, values.tolist(), strict=True)), tolerance, structural, d)
            for values in (fields.median(1).values, fields.amin(1), fields.amax(1))
        )
        self.records.append(ProbeRecord(step, phase, len(l), median, low, high))
