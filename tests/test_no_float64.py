"""A device without float64, simulated: all layers, treatments and functions, against the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from no_float64 import MPS, OnDevice, moved, no_float64
from torch import Tensor, nn

import orthocond as oc
from orthocond.layers import moments
from orthocond.probes.covariance import batch_covariance, sample_covariances
from orthocond.spectral.eigh import eigh
from orthocond.spectral.spectra import covariance_eigenvalues, singular_values

DBN = partial(oc.DecorrelatedBatchNorm2d, 6)
GCP = partial(oc.GlobalCovariancePool2d, 6, 4)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "whitening": partial(DBN, groups=2),
    "whitening, pade, cumulative": partial(DBN, backward="pade", momentum=None),
    "whitening, minimax, plain": partial(DBN, solver="minimax", affine=False),
    "whitening, newton-schulz, root": partial(DBN, solver="newton-schulz", running="root"),
    "whitening, root": partial(DBN, running="root"),
    "whitening, untracked": partial(DBN, track_running_stats=False),
    **{f"pooling, {s}": partial(GCP, s, eps=1e-2)
       for s in ("low-rank", "eigh", "minimax", "newton-schulz")},
    "skew": partial(oc.SkewOrthogonalConv2d, 6, 6, 3),
}  # fmt: skip


def on_device(model: nn.Module) -> nn.Module:
    """A copy of the model with all parameters and buffers on the device."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({k: moved(t) for k, t in tensors.items() if t is not None})
    return model


def near(ours: Tensor, expected: Tensor, rtol: float = 1e-4) -> None:
    held = ours.held if isinstance(ours, OnDevice) else ours
    assert held.dtype == expected.dtype
    assert torch.dist(held.double(), expected.double()) <= rtol * expected.double().norm() + 1e-6


def stepped(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Take a step of SGD, and return evaluation's output after it and the input's gradient."""
    x = x.requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=False)
    y = model.train()(x)
    y.square().sum().backward()
    optimizer.step()
    return model.eval()(x).detach(), x.grad


def images(*shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1


def test_the_device_refuses_what_mps_refuses() -> None:
    with no_float64() as device:
        x = OnDevice(torch.ones(2))
        refused = [x.double, partial(x.to, torch.float64), partial(torch.add, x, torch.ones(2)),
                   partial(torch.zeros, 2, dtype=torch.float64, device=device),
                   partial(x.sum, dtype=torch.float64),
                   partial(torch.ones(2).double().to, device)]  # fmt: skip
        for make in refused:
            with pytest.raises((TypeError, RuntimeError), match=r"float64|on one device"):
                make()
        assert x.device == MPS and (x + 1).device == MPS
        assert type(x.cpu()) is Tensor and x.cpu().double().tolist() == [1, 1]


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_steps_and_evaluates(
    name: str, in_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small inputs move as a whole; of larger ones, the sums."""
    if in_chunks and "whitening" not in name:
        return
    monkeypatch.setattr(moments, "CHUNK", 64 if in_chunks else moments.CHUNK)
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(3, 6, 3), LAYERS[name]())
    ours, x = on_device(theirs), images(4, 3, 7, 7)
    expected = stepped(theirs, x.clone())
    with no_float64():
        found = stepped(ours, OnDevice(x.clone()))
        for a, b in zip(found, expected, strict=True):
            assert isinstance(a, OnDevice)
            near(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert isinstance(a, OnDevice)
            near(a, b)
    if "skew" not in name:
        assert repr(ours[1].outcomes) == repr(theirs[1].outcomes)


TREATMENTS = ["nog+olr", "nog+sn+olr-exact", "nog+ow", "ow-stiefel+muon", "ow-conv",
              "polargrad+ol", "rescale+olr-newton"]  # fmt: skip


@pytest.mark.parametrize("treatments", TREATMENTS)
def test_a_treated_network_steps(treatments: str) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), DBN())
    oc.treat(theirs, "0", treatments)
    ours, x = on_device(theirs), images(4, 3, 5, 5)
    expected = trained(theirs, x.clone())
    with no_float64():
        found = trained(ours, OnDevice(x.clone()))
        near(found, expected, 2e-3)


def trained(model: nn.Module, x: Tensor) -> Tensor:
    return stepped(model, x)[0]


SYMMETRIC = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": oc.matrix_sqrt,
    "inverse, minimax": partial(oc.matrix_inv_sqrt, solver="minimax"),
    "sqrt, newton-schulz": partial(oc.matrix_sqrt, solver="newton-schulz"),
    "logarithm": oc.matrix_log,
    "power": partial(oc.matrix_power, p=1.3),
    "polar": oc.polar_factor,
    "polar, svd": partial(oc.polar_factor, method="svd"),
    "covariance": oc.covariance_sqrt,
    "covariance, float32": partial(oc.covariance_sqrt, dtype=torch.float32, eps=0.1),
    "many covariances": lambda P: oc.covariance_sqrt(torch.stack([P, 2 * P]), 0.1),
}
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "eigenvalues": lambda P: eigh(P).values,
    "in float32": lambda P: eigh(P, dtype=None).vectors.abs(),
    "covariance eigenvalues": covariance_eigenvalues,
    "singular values": singular_values,
    "learning rate": lambda P: oc.optimal_lr(P, 2 * P, "exact"),
    "batch covariance": lambda P: batch_covariance(P[None])[0],
    "sample covariances": lambda P: sample_covariances(P[None]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_and_both_derivatives(name: str) -> None:
    def derivatives(P: Tensor, twice: bool) -> list[Tensor]:
        F = FUNCTIONS[name](P)
        (g,) = torch.autograd.grad(F.square().sum() + F[..., 0, 1].sum(), P, create_graph=twice)
        second = torch.autograd.grad(g.square().sum(), P) if twice else ()
        return [F.detach(), g.detach(), *second]

    twice = "newton" not in name
    expected = derivatives(SYMMETRIC.clone().requires_grad_(), twice)
    with no_float64():
        found = derivatives(OnDevice(SYMMETRIC.clone()).requires_grad_(), twice)
        for a, b in zip(found, expected, strict=True):
            assert isinstance(a, OnDevice)
            near(a, b)


@pytest.mark.parametrize("name", VALUES)
def test_a_value(name: str) -> None:
    expected = VALUES[name](SYMMETRIC)
    with no_float64():
        found = VALUES[name](OnDevice(SYMMETRIC))
        assert isinstance(found, OnDevice) == (expected.dtype == torch.float32)
        near(found, expected)


def test_a_folded_network() -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.ReLU(), DBN()
    )
    oc.convert_batch_norm(theirs, ["1"])
    ours, x = on_device(theirs.eval()), images(2, 3, 6, 6)
    expected = oc.fold(theirs)(x)
    with no_float64():
        near(oc.fold(ours)(OnDevice(x)), expected)
