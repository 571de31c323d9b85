"""Weight treatments under an exponential moving average of weights, with buffers and without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import orthocond as oc

STEPS, DECAY = 300, 0.999


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        x = torch.randn(8, 3, 8, 8, generator=generator)
        labels = torch.randint(4, (8,), generator=generator)
        for image, label in zip(x, labels.tolist(), strict=True):
            image[:, 4 * (label // 2) :, 4 * (label % 2) :] += 1
        made.append((x, labels))
    return made


def averaged(treatments: str) -> tuple[list[nn.Module], oc.Treated]:
    """Return the treated layers of averages with and without buffers, and the trained handle."""
    torch.manual_seed(0)
    kernel = 1 if "1x1" in treatments else 3
    model = nn.Sequential(
        nn.Conv2d(3, 8, kernel, padding=kernel // 2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    treated = oc.treat(model, "0", treatments.removesuffix(" 1x1"))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    treated.bind(optimizer)
    update = get_ema_multi_avg_fn(DECAY)
    averages = [AveragedModel(model, multi_avg_fn=update, use_buffers=b) for b in (True, False)]
    for x, labels in batches(STEPS):
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()
        for average in averages:
            average.update_parameters(model)
    return [average.module[0].eval() for average in averages], treated


@torch.no_grad()
def singular_values(layer: nn.Module) -> Tensor:
    if not isinstance(layer, oc.SkewOrthogonalConv2d):
        return torch.linalg.svdvals(layer.weight.flatten(1).double())
    # Singular values of the convolution on an infinite image: at each frequency, those of a matrix.
    at = torch.fft.fft2(layer.kernel().double(), (48, 48)).permute(2, 3, 0, 1)
    return torch.linalg.svdvals(at)


@pytest.mark.parametrize("treatments", ["nog+sn", "nog+ow-stiefel", "nog+ow 1x1", "nog+ow"])
def test_averaged_weights_keep_the_property_of_the_treatment(treatments: str) -> None:
    """Allow float32's rounding only; with the averaged u and v, sn had 2.9 and ow 0.99."""
    layers, treated = averaged(treatments)
    for layer in layers:
        state = {name: t.clone() for name, t in layer.state_dict().items()}
        s = singular_values(layer)
        s = s[..., :1] if "sn" in treatments else s
        assert (s - 1).abs().max() < 1e-5
        assert all(torch.equal(t, state[n]) for n, t in layer.state_dict().items())  # unchanged
    weight = treated.weight()
    assert torch.equal(treated.remove().weight.detach().flatten(1), weight)


@pytest.mark.parametrize("treatment", ["sn", "ow-stiefel", "ow-conv"])
@pytest.mark.parametrize("others", [False, True])
def test_remove_leaves_copies_as_they_were(treatment: str, others: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    treated = oc.treat(model, "0", treatment)
    if others:  # the layer keeps another parametrization
        parametrize.register_parametrization(model[0], "bias", nn.Tanh())
    copies = [copy.deepcopy(model).eval(), AveragedModel(model).eval()]
    x = torch.randn(2, 3, 6, 6)
    expected = [other(x) for other in copies]
    keys = [list(other.state_dict()) for other in copies]
    plain = treated.remove()
    assert isinstance(plain.weight, nn.Parameter)
    assert others or type(plain) is nn.Conv2d
    for other, y, names in zip(copies, expected, keys, strict=True):
        assert torch.equal(other(x), y) and list(other.state_dict()) == names
    torch.testing.assert_close(model.eval()(x), expected[0])
    if not others:
        oc.treat(model, "0", "sn")  # the layer can be treated again
