"""Stale running statistics and their cure, against the statistics of one big batch."""

import pytest
import torch
from torch import nn

from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.recalibration import recalibrate
from orthocond.spectral.eigh import DecompositionError


def deep() -> nn.Sequential:
    """Registered in another order than it runs in."""

    class Backwards(nn.Sequential):
        def forward(self, x):
            for module in reversed(self):
                x = module(x)
            return x

    torch.manual_seed(0)
    return Backwards(
        DecorrelatedBatchNorm2d(4, momentum=1.0),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(),
        DecorrelatedBatchNorm2d(6, groups=2, momentum=1.0),
        nn.Conv2d(3, 6, 3),
    )


def as_in_one_batch(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the model makes of all images at once, whitened by their own statistics."""
    for module in model.modules():
        if isinstance(module, DecorrelatedBatchNorm2d):
            module.track_running_stats = False
    with torch.no_grad():
        return model.eval()(images)


def close(a: torch.Tensor, b: torch.Tensor, pixels: int) -> bool:
    """Equal up to the n / (n - 1) between a batch covariance and an unbiased one."""
    return bool((a - b).norm() < 2 / pixels * b.norm())


def test_stale_statistics_and_the_cure():
    """A rotation of the features leaks the largest eigenvalue into the smallest directions."""
    torch.manual_seed(0)
    images = torch.randn(64, 4, 4, 4) * torch.tensor([10.0, 1, 0.1, 0.1]).view(4, 1, 1)
    model = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), DecorrelatedBatchNorm2d(4, eps=1e-4))
    with torch.no_grad():
        for angle in torch.linspace(0, 0.5, 20):  # a weight that moves while averages are taken
            rotation = torch.eye(4)
            rotation[0, 0] = rotation[2, 2] = angle.cos()
            rotation[0, 2], rotation[2, 0] = -angle.sin(), angle.sin()
            model[0].weight.copy_(rotation[:, :, None, None])
            trained = model(images)
        stale = model.eval()(images)
        recalibrate(model, images.split(24))
        cured = model(images)
    assert (stale - trained).norm() > 0.3 * trained.norm()
    assert close(cured, trained, 64 * 16)


@pytest.mark.parametrize("form", ["tensors", "pairs", "iterator"])
def test_several_layers_are_set_in_forward_order(form):
    images = torch.randn(20, 3, 5, 5)
    batches = {
        "tensors": images.split(7),
        "pairs": [(part, torch.zeros(len(part))) for part in images.split(7)],
        "iterator": iter(images.split(7)),
    }[form]
    model = deep()
    recalibrate(model, batches)
    with torch.no_grad():
        recalibrated = model.eval()(images)
    assert close(recalibrated, as_in_one_batch(model, images), 20 * 9)


def test_batch_norm_gets_the_same_when_it_is_named():
    torch.manual_seed(0)
    images = 3 + torch.randn(30, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    recalibrate(model, images.split(8), layers=["1"])
    x = model[0](images)
    assert torch.allclose(model[1].running_mean, x.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(model[1].running_var, x.transpose(0, 1).flatten(1).var(1))


def test_only_the_layers_before_run_and_in_evaluation_mode():
    class Watch(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    seen: list[tuple[bool, bool]] = []
    head = nn.Linear(1, 1)  # would refuse the features
    model = nn.Sequential(Watch(), DecorrelatedBatchNorm2d(3), head)
    model.train()
    model[2].eval()
    recalibrate(model, torch.randn(12, 3, 2, 2).split(4))
    assert seen == [(False, False)] * 3
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert model[1].num_batches_tracked == 0


def test_bad_input_is_named():
    images = [torch.randn(4, 3, 2, 2)]
    whitened = nn.Sequential(DecorrelatedBatchNorm2d(3))
    with pytest.raises(ValueError, match=r"no whitening layer.*layers=\['bn1'\]"):
        recalibrate(nn.Sequential(nn.BatchNorm2d(3)), images)
    with pytest.raises(ValueError, match=r"unknown layer 'norms'.*did you mean 'norm'\?"):
        recalibrate(nn.ModuleDict({"norm": nn.BatchNorm2d(3)}), images, ["norms"])
    with pytest.raises(ValueError, match=r"layer '0' is a ReLU without running statistics"):
        recalibrate(nn.Sequential(nn.ReLU()), images, ["0"])
    with pytest.raises(ValueError, match=r"layers is empty: leave it out"):
        recalibrate(whitened, images, [])
    with pytest.raises(ValueError, match=r"layer '0' was reached by 0 pixels"):
        recalibrate(whitened, [])
    with pytest.raises(ValueError, match="no batch to recalibrate from"):
        recalibrate(deep(), [])
    beside = deep()
    beside.unused = nn.Sequential(DecorrelatedBatchNorm2d(3))
    beside.forward = lambda x: nn.Sequential(*list(beside)[-2::-1])(x)
    with pytest.raises(ValueError, match=r"does not reach 'unused.0'"):
        recalibrate(beside, [torch.randn(4, 3, 5, 5)])


def test_nan_leaves_the_statistics_as_they_were():
    model = nn.Sequential(DecorrelatedBatchNorm2d(3))
    with pytest.raises(DecompositionError, match=r"features before '0' hold NaN or Inf"):
        recalibrate(model, [torch.full((4, 3, 2, 2), float("nan"))])
    assert model[0].running_covariance.equal(torch.eye(3)[None])
    assert model.training


def test_synchronised_batch_norm_is_recalibrated_as_plain_batch_norm_is():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 4, 4) + 2
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    recalibrate(plain, [images], layers=["1"])
    expected = plain.state_dict()
    plain[1].reset_running_stats()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    recalibrate(synchronised, [images], layers=["1"])
    for name, value in synchronised.state_dict().items():
        assert torch.equal(value, expected[name])
