"""Folding of networks whose layers are subclasses, with the forward of their base or their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import orthocond as oc
from orthocond.layers.inference.folding import Folded


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) + 0.5


def trained(model: nn.Module, x: Tensor) -> nn.Module:
    """The model after some forwards, which set its statistics, with another bias."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, oc.DecorrelatedBatchNorm2d | oc.DecorrelatedBatchNorm1d):
                nn.init.normal_(module.bias)
        for _ in range(30):
            model(x)
    return model


def assert_folds(model: nn.Module, x: Tensor) -> nn.Module:
    folded = oc.fold(model)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    return folded


class Rectified(oc.DecorrelatedBatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class Renamed(oc.DecorrelatedBatchNorm2d):
    pass


class DoubledSkew(oc.SkewOrthogonalConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoubledConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoubledLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_whitening_layer_with_its_own_forward_stays() -> None:
    x = images(9, 3, 8, 8)
    plain = (nn.Conv2d(4, 4, 3), oc.DecorrelatedBatchNorm2d(4))
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), Rectified(4), *plain), x)
    folded = assert_folds(model, x)
    assert [type(m) for m in folded] == [nn.Conv2d, Rectified, nn.Conv2d, Folded]
    assert folded(x).min() < 0 <= folded[:2](x).min()


def test_a_whitening_layer_with_the_forward_of_its_base_is_merged() -> None:
    x = images(9, 3, 8, 8)
    folded = assert_folds(trained(nn.Sequential(nn.Conv2d(3, 4, 3), Renamed(4)), x), x)
    assert [type(m) for m in folded] == [nn.Conv2d, Folded]


def test_a_layer_with_its_own_forward_before_whitening_stays() -> None:
    x = images(9, 3, 8, 8)
    for layer in (DoubledSkew(3, 4, 3), DoubledConv(3, 4, 3)):
        folded = assert_folds(trained(nn.Sequential(layer, Renamed(4)), x), x)
        assert [type(m) for m in folded] == [type(layer), nn.Conv2d]
    v = images(32, 6)
    model = trained(nn.Sequential(DoubledLinear(6, 4), oc.DecorrelatedBatchNorm1d(4)), v)
    folded = assert_folds(model, v)
    assert type(folded[0]) is DoubledLinear and type(folded[1]) is not Folded


def test_hooks_of_a_skew_convolution_see_what_they_saw() -> None:
    x, seen = images(9, 3, 8, 8), []
    model = trained(nn.Sequential(oc.SkewOrthogonalConv2d(3, 4, 3), Renamed(4)), x).eval()
    model[0].register_forward_hook(lambda _, __, y: seen.append(y))
    folded = assert_folds(model, x)
    seen.clear()
    model(x), folded(x)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-5, atol=1e-5)
