"""Conditioning of one layer of a model, measured while images pass through the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from orthocond.errors import UserError, images_taken
from orthocond.probes.probe import ConditioningProbe, ProbeRecord, Side


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
    """Measure the conditioning of a layer's features in evaluation mode.

    Args:
        model: any module; it is put into evaluation mode.
        layer: a name from ``model.named_modules()``.
        batches: batches of images (B, 3, H, W), on the model's device.
        side: ``output`` or ``input``: which features of the layer are measured.
        per_sample: measure the covariance of each image over its own positions, instead of one
            covariance per batch.
        count: the largest number of batches to measure.
        report: called after each batch with the number of batches done and ``count``.
        channel_dim: the dimension of the channels; None to take it from the layer's type.

    Returns:
        One record per batch.

    Raises:
        UserError: the layer is unknown, the model's forward does not reach it, its type does not
            determine the channel dimension, the model does not accept the images, or there are no
            images.
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
