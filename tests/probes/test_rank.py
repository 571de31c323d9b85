"""The structural rank, against the rank of what random weights put out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from orthocond.errors import UserError
from orthocond.layers.skew import SkewOrthogonalConv2d
from orthocond.probes import structural_rank
from orthocond.spectral.conditioning import conditioning


@pytest.mark.parametrize("layer, rank", [
    (nn.Conv2d(3, 64, 3), 27),
    (nn.Conv2d(3, 16, 3), 16),
    (nn.Conv2d(128, 96, 1), 96),
    (nn.Conv2d(8, 64, 1, groups=2), 8),
    (nn.Conv2d(4, 6, 1, groups=2), 4),
    (nn.Conv1d(2, 64, 5), 10),
    (nn.Linear(12, 40), 12),
    (SkewOrthogonalConv2d(3, 64, 3), 64),
    (SkewOrthogonalConv2d(8, 4, 1), 4),
])  # fmt: skip
def test_the_structural_rank_is_reached_by_random_weights(layer, rank):
    assert structural_rank(layer, 10**6) == rank
    fan_in = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels, 9, 9)
    x = torch.randn(400, *fan_in[: 2 if isinstance(layer, nn.Conv1d) else 3])
    found = conditioning(
        torch.cov(layer(x).detach().double().movedim(1, 0).flatten(1)), feature_dtype=torch.float32
    )
    assert found.rank == rank


def test_the_structural_rank_is_bounded_by_the_number_of_samples():
    assert structural_rank(nn.Conv2d(512, 256, 1), 196) == 195
    assert structural_rank(nn.Conv2d(512, 256, 1), 1) == 0
    assert structural_rank(nn.Conv2d(512, 256, 1), np.int64(196)) == 195
    with pytest.raises(UserError, match="a ReLU has no fan-in: name a convolution"):
        structural_rank(nn.ReLU(), 10)
    with pytest.raises(UserError, match="a NoneType has no fan-in"):
        structural_rank(None, 10)
    for samples in (0, -1, 2.0, True, "9", None):
        with pytest.raises(UserError, match=f"samples is {samples!r}: allowed are whole numbers"):
            structural_rank(nn.Conv2d(3, 4, 1), samples)
    lazy = nn.LazyConv2d(64, 3)
    with pytest.raises(UserError, match="the LazyConv2d has no shape yet: run one forward"):
        structural_rank(lazy, 10**6)
    lazy(torch.zeros(1, 3, 4, 4))
    assert structural_rank(lazy, 10**6) == 27
