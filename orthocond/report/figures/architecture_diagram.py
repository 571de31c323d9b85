"""Figures 6 and 7: the paper's two networks, as columns of boxes read from the models."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from orthocond.config.tasks import TASKS
from orthocond.layers.covariance_pool import GlobalCovariancePool2d
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.style import BLUE, COLUMN, RED, SMALL, page_color

ROLES = {"pre-svd": ("Pre-SVD layer", BLUE), "meta": ("SVD meta-layer", RED)}
ROW = 0.4  # inches from box to box
LEFT, RIGHT = 0.3, 0.99  # edges of the boxes, as parts of the width


def _convolution(m: nn.Conv2d) -> str:
    size = "×".join(str(k) for k in m.kernel_size)
    return f"{size} convolution, {m.in_channels} → {m.out_channels}, stride {m.stride[0]}"


def _stage(m: nn.Sequential) -> str:
    from torchvision.models.resnet import Bottleneck  # takes seconds, only for these two figures

    kind = "bottleneck" if isinstance(m[0], Bottleneck) else "basic residual"
    return f"{len(m)} {kind} block{'s' * (len(m) > 1)}"


TEXTS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: lambda m: "batch norm",
    DecorrelatedBatchNorm2d: lambda m: "decorrelated BN: $(P + ε I)^{-1/2}(X - μ)$",
    nn.ReLU: lambda m: "ReLU",
    nn.MaxPool2d: lambda m: f"max-pool, stride {m.stride}",
    nn.AdaptiveAvgPool2d: lambda m: "global average pooling",
    nn.Linear: lambda m: f"linear, {m.in_features:,} → {m.out_features:,}",
    nn.Sequential: _stage,
    GlobalCovariancePool2d: lambda m: "upper triangle, as a vector",
}
ROOT_TEXT = r"covariance square root: $(X J X^T)^{1/2}$"
"""The text of the meta-layer inside the pooling, for every solver."""


def _steps(model: nn.Module) -> dict[str, nn.Module]:
    """Return one module per box: the model's children and the parts of its covariance pooling."""
    steps: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, GlobalCovariancePool2d):
            steps |= {f"{name}.{part}": m for part, m in child.named_children()}
        steps[name] = child
    return steps


def layers(task: str, model: str, classes: int, size: int) -> pd.DataFrame:
    """Return the steps of a network in the order in which an image passes them.

    Args:
        task: ``dbn`` or ``gcp``.
        model: one of ``orthocond.models.backbones.MODELS[task]``.
        classes: number of classes.
        size: side of the square image, in pixels.

    Returns:
        One row per step: layer, step (in words), output (its shape for one image), parameters
        (their number), role (``pre-svd``, ``meta`` or empty).
    """
    from orthocond.models.backbones import build_model

    network = build_model(task, model, "svd", classes).eval()
    roles = {TASKS[task].pre_svd: "pre-svd", TASKS[task].meta_layer: "meta"}
    steps, rows, hooks = _steps(network), [], []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        text = ROOT_TEXT if TASKS[task].per_sample and roles.get(name) == "meta" else _text(module)
        own = [] if isinstance(module, GlobalCovariancePool2d) else list(module.parameters())
        rows.append(
            {
                "layer": name,
                "step": text,
                "output": " × ".join(f"{n:,}" for n in output.shape[1:]),
                "parameters": sum(p.numel() for p in own),
                "role": roles.get(name, ""),
            }
        )

    for name, module in steps.items():
        hooks.append(
            module.register_forward_hook(lambda m, _, out, name=name: record(name, m, out))
        )
    with torch.no_grad():
        network(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows)


def _text(module: nn.Module) -> str:
    for kind, text in TEXTS.items():
        if isinstance(module, kind):
            return text(module)
    return type(module).__name__


def network_data(task: str, model: str, classes: int, size: int) -> Numbers:
    """Return the image and the steps of a network; for the arguments see ``layers``."""
    frame = layers(task, model, classes, size)
    image = {"layer": "", "step": "image", "output": f"3 × {size} × {size}", "parameters": 0}
    frame = pd.concat([pd.DataFrame([image | {"role": ""}]), frame], ignore_index=True)
    note = f"Read from build_model({task!r}, {model!r}, 'svd', {classes}) and an image of {size}"
    return Numbers(frame, Provenance(f"{note} pixels"))


def draw_network(frame: pd.DataFrame) -> Figure:
    """Draw the boxes from top to bottom, layer names on the left, output shapes at the arrows."""
    figure, axes = plt.subplots(figsize=(COLUMN, ROW * (len(frame) + 0.6)))
    ink = mpl.rcParams["text.color"]
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(-len(frame) + 0.1, 0.6))
    small: dict[str, Any] = {"fontsize": SMALL, "va": "center"}
    middle = (LEFT + RIGHT) / 2
    for place, row in enumerate(frame.itertuples()):
        role, color = ROLES.get(str(row.role), ("", None))
        edge = page_color(color)
        box = FancyBboxPatch(
            (LEFT, -place - 0.3), RIGHT - LEFT, 0.6, boxstyle="round,pad=0,rounding_size=0.02",
            mutation_aspect=len(frame) * ROW / COLUMN * 3, facecolor=(edge, 0.15 * bool(role)),
            edgecolor=edge, lw=1.4 if role else 0.7,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(middle, -place, str(row.step), ha="center", **small)
        axes.text(0, -place + 0.17 * bool(role), str(row.layer), ha="left", **small)
        axes.text(middle + 0.02, -place - 0.5, str(row.output), ha="left", **small)
        if role:
            axes.text(0, -place - 0.17, role, ha="left", color=edge, **small)
        axes.annotate("", (middle, -place - 0.7), (middle, -place - 0.3),
                      arrowprops={"arrowstyle": "-|>", "color": ink, "lw": 0.7,
                                  "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6})  # fmt: skip
    return figure


def describe_network(frame: pd.DataFrame) -> str:
    """Return the steps of a network in words."""
    steps = [
        f"{ROLES[str(row.role)][0]} {row.layer}: {row.step}" if row.role else str(row.step)
        for row in frame.itertuples()
    ]
    return "From image to classes: " + re.sub("[${}]", "", "; ".join(steps)) + "."


def _figure(name: str, caption: str, task: str, model: str, classes: int, size: int) -> StudyFigure:
    """Return the figure of a network, which needs no runs."""
    return StudyFigure(
        name,
        caption,
        data=lambda _: network_data(task, model, classes, size),
        draw=lambda data: draw_network(data.frame),
        alt=lambda data: describe_network(data.frame),
    )


FIGURES = (
    _figure(
        "fig6",
        "Figure 6: the paper's ResNet-50 with decorrelated batch norm, for CIFAR100. The "
        "treatments act on the Pre-SVD layer (blue); the SVD meta-layer (red) whitens its output. "
        "At the arrows: the shape of the features of one image.",
        *("dbn", "resnet50", 100, 32),
    ),
    _figure(
        "fig7",
        "Figure 7: the paper's ResNet-18 with global covariance pooling, for ImageNet. The "
        "treatments act on the Pre-SVD layer (blue); the SVD meta-layer (red) takes the root of "
        "the covariance of its features. At the arrows: the shape of the features of one image.",
        *("gcp", "resnet18", 1000, 224),
    ),
)
