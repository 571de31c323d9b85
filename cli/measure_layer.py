"""``orthocond measure layer``: print the conditioning of a layer of any model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
import typer
from pandas import DataFrame

from orthocond.data import load_data
from orthocond.errors import memory_short
from orthocond.measure.live_layer import measure_layer
from orthocond.measure.phase_summary import by_phase
from orthocond.models.external_models import zoo_model
from orthocond.probes.probe import Side

from .printing import print_json, print_phases, progress


@memory_short("lower --batch-size, --batches or --size")
def measure_model(
    name: str,
    layer: str,
    side: str,
    per_sample: bool,
    data: str,
    size: int | None,
    weights: Path | None,
    batches: int,
    batch_size: int,
    as_json: bool,
    channel_dim: int | None,
) -> None:
    """Measure a layer in evaluation mode over training images, and print its conditioning.

    The images come in a random order, cropped and mirrored as in training. They are normalised by
    the mean and standard deviation of the drawn images, or of ImageNet for ``imagenet:PATH``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = zoo_model(name, weights).to(device)
    source = load_data(data, size=size, train_images=batches * batch_size, test_images=1)
    drawn = source.calibration_batches(0, batch_size, batches)
    total = math.ceil(source.train_count / batch_size)
    with progress(f"{name} {layer}") as report:
        images = (batch.to(device) for batch, _ in drawn)
        records = measure_layer(
            network, layer, images, cast("Side", side), per_sample, total, report, channel_dim
        )
    phases = by_phase(DataFrame([record.row() for record in records]))
    kind = "weights of " + str(weights) if weights else "random weights"
    if as_json:
        about = {"model": name, "layer": layer, "side": side, "data": source.name}
        print_json(about | {"size": source.size, "weights": kind, "phases": phases})
        return
    channels, n = records[0].median.dimension, len(records)
    each = ", one covariance an image" if per_sample else ""
    typer.echo(
        f"{side} of {layer} in {name} ({kind}), {channels} channels, over {source.name} at "
        f"{source.size} pixels: {n} batch{'es' * (n > 1)} of {batch_size} images{each}"
    )
    print_phases(phases)
