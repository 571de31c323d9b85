"""What ``orthocond measure`` reports: the conditioning of runs, and of a layer of any model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from orthocond.errors import UserError, images_taken
from orthocond.probes.probe import ConditioningProbe, ProbeRecord, Side
from orthocond.run import CHECKPOINTS, CONFIG
from orthocond.runs import Run, find_runs
from orthocond.spectral.conditioning import MEASURED

CONSTANTS = ("rank_tol", "structural_rank")


def named_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs that paths name: a run each, or all runs of a study, or of the studies in a folder.

    Runs that are not complete are among them where they have a checkpoint.

    Raises:
        UserError: a path is none of these.
        CorruptRun: a run is not as it was written.
    """
    runs: list[Run] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"there is no run or study {str(path)!r}")
        holder = _holder(path)
        if holder is not None:
            raise UserError(
                f"{str(path)!r} is of a run's checkpoints: name the run {str(holder)!r}"
            )
        run = Run(path)
        if run.is_complete or run.has_checkpoint:
            runs.append(run)
            continue
        parts = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
        found = [run for part in parts for run in _runs_in(part)]
        if not found:
            raise UserError(f"{str(path)!r} has neither a complete run nor a checkpoint")
        runs += found
    return runs


def _holder(path: Path) -> Path | None:
    """The run that a checkpoint, or the folder of its checkpoints, lies in."""
    for folder in (path.absolute(), path.absolute().parent):
        if folder.name == CHECKPOINTS and (folder.parent / CONFIG).exists():
            return folder.parent
    return None


def _runs_in(folder: Path) -> list[Run]:
    """The complete runs of a study, and those that have a checkpoint, sorted by name."""
    complete = {run.name: run for run in find_runs(folder)}
    others = [Run(path) for path in folder.iterdir() if path.name not in complete]
    begun = [run for run in others if (run.path / CONFIG).is_file() and run.has_checkpoint]
    return sorted([*complete.values(), *begun], key=lambda run: run.name)


def by_phase(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows of conditioning.csv summed up: the median and the range of every field in each phase.

    The median is over the records, each of which is a median over its samples; the range is over
    all samples of all records.

    Returns:
        phase -> ``records`` (their number), each field (``median``, ``min``, ``max``), ``rank_tol``
        and ``structural_rank``.
    """
    result: dict[str, dict[str, Any]] = {}
    for phase, part in rows.groupby("phase", sort=False):
        fields = {
            name: {
                "median": float(part[name].median(skipna=False)),
                "min": float(part[f"{name}_min"].min(skipna=False)),
                "max": float(part[f"{name}_max"].max(skipna=False)),
            }
            for name in MEASURED
        }
        # The tolerance depends on the layer and its dtype, the structural rank on the kernel, which
        # an orthogonal convolution has longer in evaluation: both are one number in a phase.
        constants = {
            name: None if part[name].isna().iloc[0] else float(part[name].iloc[0])
            for name in CONSTANTS
        }
        result[str(phase)] = {"records": len(part), **fields, **constants}
    return result


def measure_run(run: Run) -> dict[str, Any]:
    """The conditioning of a run, or of its newest checkpoint where it is not complete.

    Returns:
        ``run``, ``status``, and ``phases`` as ``by_phase`` gives them.

    Raises:
        CorruptRun: the run is not as it was written.
    """
    _ = run.config  # which no manifest vouches for while the run is incomplete
    return {"run": run.name, "status": run.status, "phases": by_phase(run.conditioning)}


def measure_layer(
    model: nn.Module,
    layer: str,
    batches: Iterable[Tensor],
    side: Side = "output",
    per_sample: bool = False,
    count: int = 10,
    report: Callable[[int, int], None] = lambda done, total: None,
    channel_dim: int | None = None,
) -> list[ProbeRecord]:
    """The conditioning of a layer's features in evaluation, a record a batch.

    Args:
        model: any module; it is put into evaluation mode.
        layer: a name from ``model.named_modules()``.
        batches: of images (B, 3, H, W), on the model's device.
        side: ``output`` or ``input`` of the layer.
        per_sample: the covariance of each image over its own positions.
        count: stop after so many batches.
        report: called after each batch with the batches done and the count.
        channel_dim: the dimension of the channels; None to take it from the layer's type.

    Raises:
        UserError: an unknown layer, a layer that the forward does not reach or whose type does not
            tell where its channels are, images that the model does not take, or no images.
    """
    model.eval()
    source = dict(model.named_modules()).get(layer)
    linear = isinstance(source, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    structural = source if linear and side == "output" else None
    with (
        ConditioningProbe(
            model,
            layer,
            every=1,
            per_sample=per_sample,
            structural_rank=structural,
            side=side,
            channel_dim=channel_dim,
        ) as probe,
        torch.no_grad(),
    ):
        done = 0
        for done, images in enumerate(islice(batches, count), 1):
            with images_taken(images.shape):
                model(images)
            report(done, count)
    if done and not probe.records:
        raise UserError(f"the model's forward does not reach layer {layer!r}")
    if not done:
        raise UserError("there are no images to measure with")
    return probe.records
