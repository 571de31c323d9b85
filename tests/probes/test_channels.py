"""Where the probe finds the channels, against numpy's covariance over the right dimension."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from probed import check, eigenvalues
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import orthocond as oc
from orthocond.errors import UserError
from orthocond.probes.channels import features

UNKNOWN = r"the type {} does not tell where its channels are: pass channel_dim= \(--channel-dim "


SECOND = [
    (nn.Conv1d(6, 4, 1), (5, 6, 7)),
    (nn.Conv2d(6, 4, 1), (5, 6, 7, 8)),
    (nn.Conv3d(6, 4, 1), (5, 6, 7, 8, 2)),
    (nn.ConvTranspose1d(6, 4, 2), (5, 6, 7)),
    (nn.ConvTranspose2d(6, 4, 2), (5, 6, 7, 8)),
    (nn.LazyConv2d(4, 1), (5, 6, 7, 8)),
    (nn.BatchNorm1d(6), (5, 6)),
    (nn.BatchNorm1d(6), (5, 6, 7)),
    (nn.BatchNorm2d(6), (5, 6, 7, 8)),
    (nn.LazyBatchNorm2d(), (5, 6, 7, 8)),
    (nn.SyncBatchNorm(6), (5, 6, 7, 8)),
    (nn.InstanceNorm1d(6), (5, 6, 7)),
    (nn.InstanceNorm2d(6), (5, 6, 7, 8)),
    (nn.GroupNorm(2, 6), (5, 6, 7, 8)),
    (nn.GroupNorm(2, 6), (5, 6)),
    (nn.LocalResponseNorm(2), (5, 6, 7, 8)),
    (nn.MaxPool2d(2), (5, 6, 7, 8)),
    (nn.AvgPool1d(2), (5, 6, 7)),
    (nn.AdaptiveAvgPool2d((3, 2)), (5, 6, 7, 8)),
    (nn.MaxPool2d(2, return_indices=True), (5, 6, 7, 8)),
    (torchvision.ops.FrozenBatchNorm2d(6), (5, 6, 7, 8)),
    (torchvision.models.convnext.LayerNorm2d(6), (5, 6, 7, 8)),
    (oc.DecorrelatedBatchNorm1d(6), (15, 6)),
    (oc.DecorrelatedBatchNorm1d(6), (5, 6, 7)),
    (oc.DecorrelatedBatchNorm2d(6), (5, 6, 7, 8)),
    (oc.DecorrelatedBatchNorm3d(6), (5, 6, 3, 4, 2)),
    (oc.SkewOrthogonalConv2d(6, 4, 3), (5, 6, 7, 8)),
    (oc.GlobalCovariancePool2d(6, 4), (5, 6, 7, 8)),
    (oc.GlobalCovariancePool2d(6, 4, solver="average"), (5, 6, 7, 8)),
    (oc.GlobalCovariancePool2d(6, 4).root, (5, 6, 7, 8)),
    (parametrizations.spectral_norm(nn.Conv2d(6, 4, 1)), (5, 6, 7, 8)),
    (torchvision.ops.Conv2dNormActivation(6, 4, 1)[0], (5, 6, 7, 8)),
]
LAST = [
    (nn.Linear(6, 4), (5, 6)),
    (nn.Linear(6, 4), (5, 7, 6)),
    (nn.Linear(6, 4), (5, 7, 8, 6)),
    (nn.LazyLinear(4), (5, 7, 6)),
    (nn.LayerNorm(6), (5, 7, 6)),
    (nn.LayerNorm(6, elementwise_affine=False), (5, 7, 8, 6)),
    (nn.RMSNorm(6), (5, 7, 6)),
    (parametrizations.weight_norm(nn.Linear(6, 4)), (5, 7, 6)),
    (parametrizations.orthogonal(nn.Linear(6, 4)), (5, 7, 6)),
]


@pytest.mark.parametrize(
    ("layer", "shape", "axis"), [(*case, 1) for case in SECOND] + [(*case, -1) for case in LAST]
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_the_channel_dimension_follows_from_the_layer_type(layer, shape, axis, side):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    layer.train(not isinstance(layer, nn.SyncBatchNorm))
    with oc.ConditioningProbe(nn.Sequential(layer), "0", side=side) as probe, torch.no_grad():
        y = layer(x)
        y = y[0] if isinstance(y, tuple) else y
        expected = eigenvalues(x if side == "input" else y, axis)
    found = probe.records[0].median
    assert found.dimension == (x if side == "input" else y).shape[axis]
    assert found.lambda_max == pytest.approx(expected[0], rel=1e-9)


def test_a_parametrized_layer_of_a_treatment_is_known():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    for treatments in ("sn", "ow-stiefel", "ow"):
        treated = oc.treat(model, "0", treatments)
        with oc.ConditioningProbe(model, "0", side="output") as probe, torch.no_grad():
            model(torch.randn(2, 3, 8, 9))
        assert probe.records[0].median.dimension == 4
        treated.remove()


def test_the_channels_of_an_embedding_are_last():
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 2))
    with oc.ConditioningProbe(model, "0", side="output") as probe:
        model(torch.arange(21).reshape(3, 7) % 7)
    assert probe.records[0].median.dimension == 5


class Permuting(nn.LayerNorm):
    """A LayerNorm of channels at dimension 1, which the type does not tell."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Documented(nn.LayerNorm):
    """A LayerNorm that only adds an attribute."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.note = "channels last"


class ChannelFirstLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Doubled(torchvision.models.convnext.LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x.movedim(-1, 1)).movedim(1, -1)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (Permuting(6), (5, 6, 7, 8), 1),
        (ChannelFirstLinear(6, 4), (5, 6, 7, 8), 1),
        (Doubled(6), (5, 7, 8, 6), -1),
        (nn.Identity(), (5, 7, 8, 6), -1),
        (nn.Identity(), (5, 7, 6, 8), 2),
        (nn.ReLU(), (5, 6, 7, 8), 1),
        (nn.Sequential(nn.Conv2d(6, 4, 1)), (5, 6, 7, 8), 1),
        (nn.LayerNorm((6, 7, 8)), (5, 6, 7, 8), 1),  # of whole images: no dimension is the channels
        (nn.Flatten(2), (5, 6, 7, 8), 1),
        (nn.GELU(), (5, 7, 6), -1),
    ],
)
def test_a_layer_of_unknown_type_needs_channel_dim(layer, shape, axis):
    with pytest.raises(UserError, match=UNKNOWN.format(type(layer).__name__)) as error:
        oc.ConditioningProbe(nn.Sequential(layer), "0")
    assert "\n" not in str(error.value)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    check(nn.Sequential(layer), "0", x, axis, channel_dim=axis)


def test_a_subclass_that_keeps_the_forward_keeps_the_channels():
    check(nn.Sequential(Documented(6)), "0", torch.randn(5, 7, 6), -1)


def test_an_explicit_channel_dim_overrides_the_layer_type():
    pool = nn.Sequential(nn.AvgPool2d(1))  # which a network with channels last may use, too
    x = torch.randn(2, 3, 4, 5)
    for channel_dim, axis in ((None, 1), (2, 2), (-1, 3), (-2, 2), (1, 1)):
        check(pool, "0", x, axis, channel_dim)
    flat = nn.Sequential(nn.Identity())
    for channel_dim in (1, -1):
        check(flat, "0", torch.randn(9, 3), 1, channel_dim)


@pytest.mark.parametrize("channel_dim", [0, 1.0, True, "1"])
def test_a_channel_dim_that_is_no_dimension_is_refused_at_once(channel_dim):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(UserError, match=rf"channel_dim is {channel_dim!r}: allowed are 1, 2, "):
        oc.ConditioningProbe(model, "0", channel_dim=channel_dim)


@pytest.mark.parametrize("channel_dim", [4, 7, -4, -5])
def test_a_channel_dim_out_of_range_is_refused_by_name(channel_dim):
    model = nn.Sequential(nn.Identity())
    with (
        oc.ConditioningProbe(model, "0", channel_dim=channel_dim),
        pytest.raises(
            UserError,
            match=rf"channel_dim is {channel_dim}, .* probed Identity has shape \(2, 3, 4, 5\): "
            r"allowed are 1 to 3 or -1 to -3 \(dimension 0 is the batch\)",
        ),
    ):
        model(torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("layer", "shape", "side", "channel_dim", "message"),
    [
        (
            nn.Conv2d(3, 4, 1),
            (2, 3, 5, 6),
            "input",
            2,
            "3 channels, and dimension 2 of its inp",
        ),
        (nn.Conv2d(3, 4, 1), (2, 3, 5, 6), "output", -1, "has 4 channels, and dimension -1 of its"),
        (nn.Linear(6, 4), (2, 3, 6), "input", 1, r"6 channels, and dimension 1 of .* has 3: pass"),
        (nn.Linear(6, 4), (2, 3, 6), "output", 1, r"4 channels, and dimension 1 of .* has 3: pass"),
        (nn.LayerNorm(6), (2, 3, 6), "input", 1, r"6 channels, and dimension 1 of .* has 3: pass"),
        (nn.RMSNorm(6), (2, 3, 6), "output", 1, r"6 channels, and dimension 1 of .* has 3: pass"),
        (nn.GroupNorm(2, 4), (2, 4, 6), "input", 2, r"4 channels, and dimension 2 .* has 6: pass"),
        (nn.BatchNorm1d(4), (2, 4, 6), "input", 2, r"4 channels, and dimension 2 .* has 6: pass"),
        (oc.DecorrelatedBatchNorm1d(3), (2, 3, 4), "input", 2, "3 channels, and dimension 2 of"),
        (oc.DecorrelatedBatchNorm2d(3), (2, 3, 4, 6), "input", 3, "3 channels, and dimension 3 of"),
        (
            oc.SkewOrthogonalConv2d(3, 2, 3),
            (2, 3, 6, 6),
            "output",
            3,
            "2 channels, and dimension 3",
        ),
        (
            nn.InstanceNorm2d(3, affine=False),
            (2, 5, 6, 6),
            "input",
            None,
            "3 channels, and dimensi",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:input's size at dim")
def test_a_dimension_of_another_size_than_the_channels_is_refused(
    layer, shape, side, channel_dim, message
):
    model = nn.Sequential(layer)
    with (
        oc.ConditioningProbe(model, "0", side=side, channel_dim=channel_dim),
        pytest.raises(UserError, match=message),
    ):
        model(torch.randn(shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, 1), (3, 3, 5)),  # whose second dimension has the size of the channels
        (nn.Conv1d(3, 4, 1), (3, 3)),
        (nn.Conv3d(3, 4, 1), (3, 3, 5, 6)),
        (nn.ConvTranspose2d(3, 4, 1), (3, 3, 5)),
        (nn.MaxPool2d(2), (3, 4, 4)),
        (nn.AdaptiveAvgPool2d(1), (3, 4, 4)),
        (nn.InstanceNorm2d(3), (3, 3, 5)),
        (parametrizations.spectral_norm(nn.Conv2d(3, 4, 1)), (3, 3, 5)),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_batch_is_needed(layer, shape, side):
    model = nn.Sequential(layer).eval()
    with (
        oc.ConditioningProbe(model, "0", side=side),
        pytest.raises(UserError, match=r"without a batch: pass x\.unsqueeze\(0\) to the model"),
    ):
        model(torch.randn(shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(oc.DecorrelatedBatchNorm2d(3), (3, 3, 5)), (oc.DecorrelatedBatchNorm3d(3), (3, 3, 5, 6))],
)
def test_a_batch_is_needed_before_a_whitening_layer(layer, shape):
    with pytest.raises(UserError, match=r"without a batch: pass x\.unsqueeze\(0\) to the model"):
        features(layer, (torch.randn(shape),), "input")


@pytest.mark.parametrize("values", [(), (None,), (torch.zeros(3),), (torch.zeros(2, 3).long(),)])
def test_features_are_a_floating_tensor_with_a_batch(values):
    with pytest.raises(UserError, match=r"allowed are floating-point features \(B, d, \.\.\.\)"):
        features(nn.Linear(3, 4), values, "input")


def test_features_are_flattened_in_the_order_of_positions():
    x = torch.arange(120.0).reshape(2, 3, 4, 5)
    move: Callable[[Tensor], Tensor] = lambda t: t.movedim(1, -1)  # noqa: E731
    first = features(nn.Conv2d(3, 4, 1), (x,), "input")
    assert torch.equal(first, x.flatten(2))
    assert torch.equal(features(nn.Linear(3, 4), (move(x),), "input"), first)
    assert torch.equal(features(nn.Identity(), (move(x),), "input", 3), first)
