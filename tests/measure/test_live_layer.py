from __future__ import annotations

import pytest
import torch
from torch import nn

from orthocond.errors import UserError
from orthocond.measure.live_layer import measure_layer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(2))


def test_the_covariance_of_a_layer_agrees_with_numpy():
    model, images = network(), torch.randn(6, 3, 8, 8)
    (record,) = measure_layer(model, "0", [images], "output")
    features = model[0](images).detach().double().movedim(1, 0).flatten(1)
    l = torch.linalg.eigvalsh(torch.cov(features, correction=0))
    assert record.median.kappa == pytest.approx((l.max() / l.min()).item(), rel=1e-9)
    assert record.median.structural_rank == 5 and record.phase == "eval"
    (same,) = measure_layer(model, "1", [images], "input")
    assert same.median.kappa == record.median.kappa


def test_each_image_has_a_covariance_of_its_own():
    model, images = network().double(), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    (record,) = measure_layer(model, "0", [images], per_sample=True)
    alone = [measure_layer(model, "0", [image[None]])[0].median.kappa for image in images]
    assert record.samples == 3
    expected = (min(alone), sorted(alone)[1], max(alone))
    found = (record.min.kappa, record.median.kappa, record.max.kappa)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_requested_number_of_batches_is_measured_and_reported():
    told: list[tuple[int, int]] = []
    batches = (torch.randn(2, 3, 8, 8) for _ in range(9))
    records = measure_layer(network(), "0", batches, count=2, report=lambda *p: told.append(p))
    assert len(records) == 2 and told == [(1, 2), (2, 2)] and len(list(batches)) == 7


@pytest.mark.parametrize(
    ("layer", "side", "images", "message"),
    [
        ("3", "output", [torch.zeros(1, 3, 8, 8)], r"unknown layer '3' of Sequential"),
        ("", "output", [torch.zeros(1, 3, 8, 8)], r"named_modules\(\)$"),
        ("0", "outside", [torch.zeros(1, 3, 8, 8)], r"unknown side 'outside': allowed are input"),
        ("0", "output", [], r"^there are no images to measure with$"),
        ("0", "output", [torch.zeros(1, 1, 8, 8)], r"does not take images \(1, 1, 8, 8\): Given g"),
        ("0", "output", [torch.zeros(1, 3, 2, 2)], r"does not take images \(1, 3, 2, 2\): Calcul"),
    ],
)
def test_layers_that_cannot_be_measured_are_refused_in_one_line(layer, side, images, message):
    with pytest.raises(UserError, match=message) as error:
        measure_layer(network(), layer, images, side)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_never_called_is_reported():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(UserError, match=r"^the model's forward does not reach layer 'unused'$"):
        measure_layer(Part(), "unused", [torch.zeros(1, 3, 4, 4)])
