"""OW-Conv: the operator's singular values by FFT and as a dense matrix, and its parameter."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import SGD, AdamW
from toys import Build, Toy

import orthocond as oc
from orthocond.errors import DecompositionError
from orthocond.treatments import Treated
from orthocond.treatments.ow_conv import block_convolution

SHAPES = [(3, 64, 3), (64, 3, 3), (8, 8, 3), (5, 5, 3), (6, 7, 2), (4, 2, 5), (1, 3, 4), (1, 1, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def made(
    shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[nn.Sequential, Treated]:
    torch.manual_seed(seed)
    n_in, n_out, k = shape
    conv = nn.Conv2d(n_in, n_out, k, padding=k // 2, padding_mode="circular", bias=False)
    model = nn.Sequential(conv).to(dtype)
    return model, oc.treat(model, "0", "ow-conv")


def defect(model: nn.Sequential, sizes: tuple[int, ...] = (8, 32)) -> float:
    """Return the largest distance from 1 of a singular value at any frequency of the grids."""
    K = model[0].weight.detach().double().numpy()
    found = 0.0
    for size in sizes:
        at_frequencies = np.fft.fft2(K, (size, size)).transpose(2, 3, 0, 1)
        found = max(found, np.abs(np.linalg.svd(at_frequencies, compute_uv=False) - 1).max())
    return found


@shapes
def test_all_singular_values_of_the_operator_are_one(shape: tuple[int, int, int]) -> None:
    for dtype, limit in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        model, treated = made(shape, dtype)
        n_in, n_out, k = shape
        assert model[0].weight.shape == (n_out, n_in, k, k) and model[0].weight.dtype == dtype
        assert defect(model) < limit
        assert treated.weight().shape == (n_out, n_in * k * k)


@pytest.mark.parametrize(
    ("treatment", "size", "low", "high"),
    [("ow-conv", 3, 0, 1e-6), ("ow-stiefel", 3, 0.2, 2), ("ow", 11, 1e-6, 0.05)],
)
def test_its_controls_are_not_orthogonal_at_their_own_size_or_not_as_an_operator(
    treatment: str, size: int, low: float, high: float
) -> None:
    """OW-Stiefel has an orthogonal matrix at 3 x 3, and OW needs 11 x 11 for its operator."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False))
    oc.treat(model, "0", treatment)
    K = (model[0].kernel() if treatment == "ow" else model[0].weight).detach()
    if treatment == "ow-stiefel":
        gram = K.flatten(1) @ K.flatten(1).mT
        torch.testing.assert_close(gram, torch.eye(8), rtol=0, atol=1e-5)
    plain = nn.Sequential(nn.Conv2d(3, 8, size, bias=False))
    plain[0].weight = nn.Parameter(K)
    assert K.shape == (8, 3, size, size) and low <= defect(plain, (12, 32)) < high


@pytest.mark.parametrize("shape", [(2, 5, 3), (5, 2, 3), (3, 3, 3), (3, 4, 1)], ids=str)
def test_the_dense_matrix_of_the_operator_is_orthogonal(shape: tuple[int, int, int]) -> None:
    """Apply the layer itself to all pixels of 5 x 5 images."""
    model, _ = made(shape, torch.float64)
    pixels = torch.eye(shape[0] * 25, dtype=torch.float64).view(-1, shape[0], 5, 5)
    matrix = model(pixels).detach().flatten(1).numpy()
    s = np.linalg.svd(matrix, compute_uv=False)
    assert len(s) == 25 * min(shape[:2]) and np.allclose(s, 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_kernel_is_the_product_of_its_factors_at_each_frequency(k: int) -> None:
    """Multiply P + (I - P) exp(-i w) by numpy; every second pair is the other way round."""
    rng = np.random.default_rng(0)
    H = np.linalg.qr(rng.standard_normal((6, 4)))[0]
    V = np.linalg.qr(rng.standard_normal((2 * (k - 1), 6, 3)))[0]
    K = block_convolution(torch.from_numpy(H), torch.from_numpy(V)).numpy()
    assert K.shape == (6, 4, k, k)
    at_frequencies = np.fft.fft2(K, (7, 7))
    for a in range(7):
        for b in range(7):
            expected = H.astype(complex)
            for i, basis in enumerate(V):
                P = basis @ basis.T
                turn = np.exp(-2j * np.pi * (a if i % 2 == 0 else b) / 7)
                here, delayed = (P, np.eye(6) - P) if i < 2 or i >= 4 else (np.eye(6) - P, P)
                expected = (here + turn * delayed) @ expected
            assert np.allclose(at_frequencies[:, :, a, b], expected, rtol=0, atol=1e-13)


def test_projectors_have_half_rank_and_every_tap_is_used() -> None:
    model, treated = made((3, 64, 3))
    assert treated.parameter.shape == (64, 3 + 4 * 32)
    taps = model[0].weight.detach().square().sum((0, 1))
    assert taps.sum().item() == pytest.approx(3, rel=1e-6) and (taps > 0.03).all()
    one, _ = made((1, 1, 3))  # without a projector it is a shift, here by nothing
    assert (
        one[0].weight.detach().abs().flatten().round(decimals=6).tolist()
        == [0.0] * 4 + [1.0] + [0.0] * 4
    )


BUILDS: dict[str, Build] = {
    "sgd": partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.05),
    "adamw": partial(AdamW, lr=0.05, weight_decay=0.5),
    "fused": partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.05, fused=True),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("shape", [(3, 64, 3), (64, 3, 3), (8, 4, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_they_stay_one_under_weight_decay_and_in_bfloat16(
    build: Build, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Train by float32 arithmetic on a parameter that is rounded to the dtype at each step."""
    model, treated = made(shape)
    start = treated.weight()
    target = torch.randn(4, shape[1], 8, 8)
    images = torch.randn(4, shape[0], 8, 8)
    optimizer = build(model.parameters())
    for _ in range(40):
        optimizer.zero_grad()
        (model(images) - target).square().mean().mul(10).backward()
        optimizer.step()
        with torch.no_grad():
            treated.parameter.copy_(treated.parameter.to(dtype))
    assert (treated.weight() - start).norm() > 0.3 * start.norm()
    assert defect(model) < 1e-5
    model.to(dtype)
    rounded = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps  # the kernel, once
    assert defect(model) < (1e-3 if 64 in shape else rounded)


def test_decay_alone_changes_nothing() -> None:
    model, treated = made((3, 8, 3))
    before = treated.weight()
    for factor in (0.5, 1e-20, 1e15):
        with torch.no_grad():
            treated.parameter.mul_(factor)
        torch.testing.assert_close(treated.weight(), before, rtol=0, atol=1e-6)
    assert defect(model) < 1e-6


def test_a_step_keeps_the_blocks_conditioned_to_first_order() -> None:
    found = []
    for lr in (1e-2, 1e-3):
        model, treated = made((3, 8, 3), torch.float64)
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
        model(images).sin().square().sum().backward()
        SGD(model.parameters(), lr=lr).step()
        s = torch.linalg.svdvals(treated.parameter.detach()[:, :3])
        found.append((s - 1).abs().max().item())
    assert found[0] > 1e-8 and found[1] == pytest.approx(found[0] / 100, rel=0.1)


@pytest.mark.parametrize("shape", [(2, 4, 3), (5, 3, 2), (3, 3, 1)], ids=str)
def test_gradient(shape: tuple[int, int, int]) -> None:
    model, treated = made(shape, torch.float64)
    parametrization = model[0].parametrizations.weight[0]
    packed = treated.parameter.detach() @ torch.diag(
        torch.linspace(0.5, 2, treated.parameter.shape[1], dtype=torch.float64)
    )
    assert torch.autograd.gradcheck(parametrization, (packed.requires_grad_(),))


def test_one_seed_is_one_start_in_every_dtype() -> None:
    first, same, other = made((3, 8, 3)), made((3, 8, 3)), made((3, 8, 3), seed=1)
    assert torch.equal(first[1].parameter, same[1].parameter)
    assert (first[1].weight() - other[1].weight()).norm() > 0.5
    exact = made((3, 8, 3), torch.float64)[1].parameter
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(made((3, 8, 3), dtype)[1].parameter, exact.to(dtype))


def test_the_start_is_uniform() -> None:
    """Check a first and a second moment of the matrix of a 1 x 1 layer over many starts."""
    W = torch.stack([made((2, 3, 1), torch.float64, seed)[1].weight() for seed in range(400)])
    # Haar: mean 0 and E w^2 = 1 / 3 with standard errors of 0.03 and 0.015
    assert W.mean(0).abs().max() < 0.12 and (W.square().mean(0) - 1 / 3).abs().max() < 0.06


def test_a_removed_layer_is_a_plain_one_that_trains() -> None:
    model, treated = made((3, 8, 3), torch.float64)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before, weight = model(x).detach(), model[0].weight.detach().clone()
    layer = treated.remove()
    assert type(layer) is nn.Conv2d and not is_parametrized(layer) and model[0] is layer
    assert torch.equal(layer.weight, weight) and torch.equal(model(x), before)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    model(x).square().sum().backward()
    SGD(model.parameters(), lr=0.1).step()
    torch.testing.assert_close(layer.weight.detach(), weight - 0.1 * layer.weight.grad)


def test_the_old_optimizer_may_step_after_remove() -> None:
    toy = Toy("ow-conv")
    toy.step()
    layer = toy.treated.remove()
    weight = layer.weight.detach().clone()
    toy.optimizer.step()  # with the gradient of the packed parameter
    assert torch.equal(layer.weight, weight)


def test_averages_and_copies_are_orthogonal_too() -> None:
    model, other = made((3, 8, 3))[0], made((3, 8, 3), seed=1)[0]
    twin = copy.deepcopy(model)
    state = {n: 0.7 * t + 0.3 * other.state_dict()[n] for n, t in model.state_dict().items()}
    twin.load_state_dict(state)
    assert defect(twin) < 1e-6 and defect(model) < 1e-6
    assert (twin[0].weight - model[0].weight).norm() > 0.1
    assert list(model.state_dict()) == ["0.parametrizations.weight.original"]
    half = {n: t.bfloat16() for n, t in model.state_dict().items()}
    twin.load_state_dict(half)
    assert defect(twin) < 1e-6  # of float32, from a checkpoint in half precision


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_a_parameter_without_full_rank_is_an_error(value: float) -> None:
    model, treated = made((3, 8, 3))
    with torch.no_grad():
        treated.parameter[:, 5] = value  # a column of the first projector
    with pytest.raises(DecompositionError):
        model(torch.zeros(1, 3, 8, 8))
    with torch.no_grad():
        treated.parameter[:, 1] = treated.parameter[:, 0]
        treated.parameter[:, 5] = 1.0
    with pytest.raises(
        DecompositionError,
        match="the parameter of ow-conv has a block that is not finite or without full",
    ):
        model(torch.zeros(1, 3, 8, 8))


def test_a_weight_can_not_be_assigned() -> None:
    model, _ = made((3, 8, 3))
    with pytest.raises(RuntimeError, match="right_inverse"):
        model[0].weight = torch.zeros(8, 3, 3, 3)


def test_the_orthogonal_loss_reads_its_kernel() -> None:
    toy = Toy("ol+ow-conv")
    W = toy.model[0].weight.flatten(1)
    expected = 0.05 * torch.linalg.matrix_norm(W @ W.mT - torch.eye(8).double())
    assert toy.treated.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    toy.treated.penalty().backward()
    assert toy.treated.parameter.grad.norm() > 0
