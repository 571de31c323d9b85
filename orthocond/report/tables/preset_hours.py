"""The hours that each preset needs: on a CPU from recorded runs, on GPUs from an assumed speed.

The operations/s that a machine sustains are a run's images/s times the operations per image.
Another network is assumed to run at the same operations/s. The estimate leaves out evaluations,
reading of images and decompositions. So the hours are a lower bound, accurate to about a factor of
two.
"""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from orthocond.config.methods import PLAIN
from orthocond.config.sources import presets, read_preset, resolve
from orthocond.config.tasks import DBN
from orthocond.models.backbones import build_model
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study


class Images(NamedTuple):
    """Size of a training set: images, classes, pixels of a side."""

    number: int
    classes: int
    size: int


SETS = {
    "leaves": Images(50_000, 10, 32),
    "cifar10": Images(50_000, 10, 32),
    "cifar100": Images(50_000, 100, 32),
    "imagenet": Images(1_281_167, 1000, 224),
}
GPU = 20e12
"""Operations/s that one data-centre GPU is assumed to sustain in mixed-precision training."""
GPUS, EFFICIENCY = 8, 0.9


def training_operations(model: nn.Module, size: int) -> float:
    """Return the multiplications and additions of one image's forward and backward pass.

    Args:
        model: takes images (B, 3, size, size).
        size: side of the square image, in pixels.

    Example:
        >>> training_operations(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten()), 4) / (3 * 8 * 16)
        4.0
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def _operations(task: str, model: str, images: Images) -> float:
    return training_operations(build_model(task, model, PLAIN, images.classes), images.size)


def _speeds(study: Study) -> dict[str, float]:
    """Return each task's operations/s on a CPU: the median over its runs of plain SVD."""
    speeds: dict[str, list[float]] = {}
    operations: dict[tuple[str, str, int], float] = {}
    for run in study.runs:
        config = run.config
        if config["method"] != PLAIN or run.environment["device"] != "cpu":
            continue
        key = (config["task"], config["model"], config["data"]["size"])
        if key not in operations:
            operations[key] = _operations(*key[:2], Images(0, 100, key[2]))
        rate = float(run.timings["images_per_second"].median())
        speeds.setdefault(key[0], []).append(rate * operations[key])
    return {task: median(rates) for task, rates in speeds.items()}


def _row(name: str, speeds: dict[str, float]) -> dict[str, Any]:
    runs = list(resolve(preset=name))
    config = runs[0]
    images = SETS[config.data.name]
    images = Images(
        config.data.train_images or images.number,
        config.data.classes or images.classes,
        config.data.size or images.size,
    )
    operations = _operations(config.task, config.model, images)
    total = operations * config.epochs * images.number / 3600
    cpu = speeds.get(config.task, float("nan"))
    return {
        "preset": name,
        "runs": len(runs),
        "GFLOP per image": operations / 1e9,
        "a run, CPU here (h)": total / cpu,
        "a run, one GPU (h)": total / GPU,
        "all, CPU here (h)": len(runs) * total / cpu,
        "all, one GPU (h)": len(runs) * total / GPU,
        "all, eight GPUs (h)": len(runs) * total / (GPUS * EFFICIENCY * GPU),
    }


def build(study: Study) -> Numbers:
    """Return the hours of each preset whose training set is known; the note has the assumptions.

    Raises:
        MissingRuns: there is no run of plain SVD on a CPU; the message has the command for one.
    """
    speeds = _speeds(study)
    if not speeds:
        raise study.missing(DBN.name, [PLAIN])
    known = [name for name in presets() if read_preset(name)["data"]["name"] in SETS]
    frame = pd.DataFrame([_row(name, speeds) for name in known])
    measured = ", ".join(f"{task} {rate / 1e9:.0f} GFLOP/s" for task, rate in speeds.items())
    place = next(r.environment for r in study.runs if r.environment["device"] == "cpu")
    machine = f"{place.get('device_name', 'a CPU')}, {place.get('threads', '?')} threads"
    note = (
        f"Hours of training. CPU here: measured on the runs of plain SVD in runs/ ({measured}; "
        f"{machine}) and carried over to the preset's network by its operations. GPU: estimates, "
        f"not run here, for a GPU that sustains {GPU / 1e12:.0f} TFLOP/s; eight of them at "
        f"{EFFICIENCY:.0%} of eight times that. Evaluations, reading of images and decompositions "
        "come on top"
    )
    return Numbers(frame, Provenance(note))
