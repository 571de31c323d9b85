"""What a probe records of a layer, against numpy over a dimension that the test knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import orthocond as oc


def eigenvalues(x: Tensor, axis: int) -> np.ndarray:
    """Of the covariance over everything but one dimension, descending, by numpy in float64."""
    rows = np.moveaxis(x.detach().double().numpy(), axis, 0).reshape(x.shape[axis], -1)
    return np.linalg.eigvalsh(np.cov(rows, bias=True).reshape(len(rows), -1))[::-1]


def seen(model: nn.Module, layer: str, images: Tensor, side: str) -> Tensor:
    """What comes into or out of a layer, by a hook of its own."""
    kept: list[Any] = []
    module = dict(model.named_modules())[layer]
    keep = lambda _, x, y: kept.append(y if side == "output" else x[0])  # noqa: E731
    handle = module.register_forward_hook(keep)
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0]


def check(
    model: nn.Module, layer: str, images: Tensor, axis: int, channel_dim: int | None = None
) -> None:
    """Compare records of both sides with numpy's, over the given axis."""
    model.eval()
    for side in ("input", "output"):
        with oc.ConditioningProbe(
            model, layer, every=1, side=side, channel_dim=channel_dim
        ) as probe, torch.no_grad():  # fmt: skip
            model(images)
        x = seen(model, layer, images, side)
        found, expected = probe.records[0].median, eigenvalues(x, axis)
        assert found.dimension == x.shape[axis]
        assert found.lambda_max == pytest.approx(expected[0], rel=1e-9)
        total = np.clip(expected, 0, None).sum()
        assert found.stable_rank == pytest.approx(total / expected[0], rel=1e-6)
