"""The skew orthogonal convolution against the matrix exponential of the dense skew matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from reference import dense_convolution
from torch import Tensor, nn
from torch.nn import functional as F

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers.skew import EVAL_TERMS, SCALE, TRAIN_TERMS
from orthocond.layers.skew_kernel import compose, skew, unfoldings

# What a series cut after n terms leaves out, relative: 0.7^(n+1) / (n+1)! and less than half more.
LEFT_OUT = {TRAIN_TERMS: 2.5e-4, EVAL_TERMS: 1e-9}


def layer(*args: int, **options: Any) -> oc.SkewOrthogonalConv2d:
    torch.manual_seed(0)
    return oc.SkewOrthogonalConv2d(*args, **options).double()


def scaled(made: oc.SkewOrthogonalConv2d) -> Tensor:
    """The layer's filter L, from exact norms."""
    L = skew(made.filter.detach())
    norms = [np.linalg.norm(A.numpy(), 2) for A in unfoldings(L)]
    return L * 0.7 / (made.kernel_size * min(norms))


def converged(made: oc.SkewOrthogonalConv2d) -> oc.SkewOrthogonalConv2d:
    for _ in range(400):  # each moves the power iteration by one
        made.train().kernel()
    return made.eval()


@pytest.mark.parametrize(("channels", "k"), [((3, 4), 3), ((4, 4), 5), ((4, 2), 3)])
def test_the_series_is_the_matrix_exponential(channels: tuple[int, int], k: int) -> None:
    made = converged(layer(*channels, k, bias=False, mode="series"))
    inputs, outputs = channels
    x = torch.randn(2, inputs, 5, 6, dtype=torch.float64)
    wide = np.zeros((2, max(channels), 5, 6))
    wide[:, :inputs] = x
    E = scipy.linalg.expm(dense_convolution(scaled(made), 5, 6))
    assert np.allclose(E @ E.T, np.eye(len(E)), rtol=0, atol=1e-13)
    expected = (wide.reshape(2, -1) @ E.T).reshape(wide.shape)[:, :outputs]
    y = made(x).detach().numpy()
    assert np.linalg.norm(y - expected) <= LEFT_OUT[EVAL_TERMS] * np.linalg.norm(wide)
    y = made.train()(x).detach().numpy()
    assert np.linalg.norm(y - expected) <= LEFT_OUT[TRAIN_TERMS] * np.linalg.norm(wide)


def test_a_fresh_layer_is_within_the_radius() -> None:
    """After the 20 power iterations of its construction, for which its L is read back."""
    made = layer(3, 8, 3).eval()
    response = compose(made._scaled().detach(), 8, 1)  # the identity and L
    response[range(8), range(8), 1, 1] -= 1
    assert np.linalg.norm(dense_convolution(response, 8, 8), 2) <= 0.7


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [(3, 8), (8, 8), (8, 3)])
def test_composed_is_the_series_in_the_interior(channels: tuple[int, int], training: bool) -> None:
    composed, series = (layer(*channels, 3, mode=mode) for mode in ("composed", "series"))
    x = torch.randn(2, channels[0], 32, 32, dtype=torch.float64)
    y, z = composed.train(training)(x), series.train(training)(x)
    reach = TRAIN_TERMS if training else EVAL_TERMS
    assert composed.kernel().shape == (channels[1], channels[0], 2 * reach + 1, 2 * reach + 1)
    inner = (..., slice(reach, -reach), slice(reach, -reach))
    torch.testing.assert_close(y[inner], z[inner], rtol=1e-12, atol=1e-12)
    difference = (y - z).norm() / z.norm()
    assert 1e-6 < difference < 1e-1  # the ring where zeros meet the image


@pytest.mark.parametrize("mode", ["composed", "series"])
@pytest.mark.parametrize("training", [True, False])
def test_norms_are_kept_away_from_the_border(mode: str, training: bool) -> None:
    x = torch.zeros(1, 3, 27, 27, dtype=torch.float64)
    x[..., 10:17, 10:17] = torch.randn(1, 3, 7, 7, dtype=torch.float64)
    y = layer(3, 8, 3, bias=False, mode=mode).train(training)(x)
    left_out = LEFT_OUT[TRAIN_TERMS if training else EVAL_TERMS]
    assert y.norm().item() == pytest.approx(x.norm().item(), rel=left_out)
    fewer = layer(3, 2, 3, bias=False, mode=mode).train(training)(x)
    assert fewer.norm() <= (1 + left_out) * x.norm()


@pytest.mark.parametrize("channels", [(3, 8), (5, 5), (8, 3)])
@pytest.mark.parametrize("mode", ["composed", "series"])
def test_one_by_one_is_the_matrix_exponential(channels: tuple[int, int], mode: str) -> None:
    made = layer(*channels, 1, mode=mode)
    M = made.filter.detach().flatten(1).numpy()
    W = scipy.linalg.expm(M - M.T)[: channels[1], : channels[0]]
    kernel = made.kernel().detach()[..., 0, 0].numpy()
    assert np.allclose(kernel, W, rtol=0, atol=1e-14)
    side = W.T @ W if channels[1] >= channels[0] else W @ W.T
    assert np.allclose(side, np.eye(min(channels)), rtol=0, atol=1e-14)
    x = torch.randn(2, channels[0], 4, 4, dtype=torch.float64)
    expected = np.einsum("oi,bihw->bohw", W, x) + made.bias.detach().numpy()[:, None, None]
    assert np.allclose(made(x).detach(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("k", "bias"), [(1, True), (3, True), (3, False), (5, True)])
def test_to_conv2d_is_the_layer_in_evaluation(k: int, bias: bool) -> None:
    made = layer(3, 6, k, bias=bias)
    conv = made.to_conv2d()
    assert made.training and conv.training and type(conv) is torch.nn.Conv2d
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    assert torch.equal(conv(x), made.eval()(x))
    assert conv.weight.is_leaf and conv.weight.requires_grad


def test_state_dict_round_trip() -> None:
    made = layer(3, 6, 3)
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    made(x)
    other = oc.SkewOrthogonalConv2d(3, 6, 3).double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(made(x), other(x))  # the power iterations move alike
    assert torch.equal(made.eval()(x), other.eval()(x))


@pytest.mark.parametrize(("channels", "k"), [((2, 3), 3), ((3, 2), 3), ((3, 3), 1)])
def test_the_kernels_gradient(channels: tuple[int, int], k: int) -> None:
    made = layer(*channels, k).eval()
    start = made.filter.detach().clone().requires_grad_()
    del made.filter

    def kernel(filter: Tensor) -> Tensor:
        made.filter = filter
        return made.kernel()

    assert torch.autograd.gradcheck(kernel, start, fast_mode=True)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_product_and_not_the_kernel(k: int, dtype: torch.dtype) -> None:
    made = layer(3, 8, k).float().eval()
    x = torch.randn(2, 3, 12, 12)
    kernel, y = made.kernel(), made(x)
    with torch.autocast("cpu", dtype):
        z = made(x)
    assert z.dtype == dtype and torch.equal(made.kernel(), kernel)
    assert (z - y).norm() < 2 * torch.finfo(dtype).eps * y.norm()
    z.float().square().sum().backward()
    assert made.filter.grad.isfinite().all() and made.filter.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": 4}, "needs an odd kernel, got 4"),
        ({"kernel_size": -1}, "kernel_size is -1: allowed are whole numbers from 1"),
        ({"kernel_size": 3.0}, "kernel_size is 3.0: allowed are whole numbers from 1"),
        ({"kernel_size": [3, 5]}, r"one kernel_size for height and width, got \[3, 5\]"),
        ({"in_channels": 2.5}, "in_channels is 2.5: allowed are whole numbers from 1"),
        ({"out_channels": 0}, "out_channels is 0: allowed are whole numbers from 1"),
        ({"kernel_size": (3, 5)}, r"one kernel_size for height and width, got \(3, 5\)"),
        ({"padding": (1, 0)}, r"one padding for height and width, got \(1, 0\)"),
        ({"padding": "same"}, "has padding 1, got same"),
        ({"stride": 2}, "has stride 1, got 2: anything else would not keep norms"),
        ({"padding": 0}, "has padding 1, got 0"),
        ({"dilation": 2}, "has dilation 1, got 2"),
        ({"groups": 3}, "has groups 1, got 3"),
        ({"mode": "serie"}, "unknown mode 'serie': allowed are composed, series; did you mean"),
    ],
)
def test_what_would_not_keep_norms_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        oc.SkewOrthogonalConv2d(**{"in_channels": 3, "out_channels": 6, "kernel_size": 3} | options)


def test_pairs_are_taken_as_nn_conv2d_takes_them() -> None:
    numbers, pairs = {"stride": 1, "padding": 1}, {"stride": (1, 1), "padding": (1, 1)}
    x = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    expected = oc.SkewOrthogonalConv2d(3, 6, 3, **numbers)(x)
    torch.manual_seed(0)
    assert torch.equal(oc.SkewOrthogonalConv2d(3, 6, (3, 3), dilation=(1, 1), **pairs)(x), expected)
    torch.manual_seed(0)
    assert torch.equal(oc.SkewOrthogonalConv2d(3, 6, [3, 3], **numbers)(x), expected)


def test_the_series_is_no_single_convolution() -> None:
    with pytest.raises(UserError, match=r"no single convolution.*pads at every term: use mode"):
        layer(3, 6, 3, mode="series").to_conv2d()
    assert layer(3, 6, 1, mode="series").to_conv2d().weight.shape == (6, 3, 1, 1)


def stored_bound(made: oc.SkewOrthogonalConv2d) -> Tensor:
    """The filter over the bound that the stored singular vectors give."""
    L = skew(made.filter)
    norms = [(A.mT @ made.get_buffer(f"left_{i}")).norm() for i, A in enumerate(unfoldings(L))]
    return L * (SCALE / (made.kernel_size * torch.stack(norms).min()))


def test_evaluation_scales_as_training_left_it() -> None:
    """Vectors of length 1 are taken as they are, even where they lag behind the filter."""
    made = layer(3, 8, 3)
    with torch.no_grad():
        made.filter.add_(torch.randn_like(made.filter))
    made.train().kernel()
    assert torch.equal(made.eval()._scaled(), stored_bound(made))


def test_averaged_singular_vectors_are_found_anew_and_not_stored() -> None:
    made = converged(layer(3, 8, 3))
    expected = made.kernel()
    for i in range(4):
        u = made.get_buffer(f"left_{i}")
        u.mul_(0.3).add_(0.01 * torch.randn_like(u))
    state = {name: t.clone() for name, t in made.state_dict().items()}
    assert (stored_bound(made).norm() / made._scaled().norm()) > 2  # far too long for the series
    torch.testing.assert_close(made.kernel(), expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(t, state[name]) for name, t in made.state_dict().items())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("mode", ["composed", "series"])
@pytest.mark.parametrize("start", [nn.init.zeros_, nn.init.dirac_, nn.init.ones_])
def test_a_symmetric_filter_gives_the_identity_and_can_be_trained(
    k: int, mode: str, start: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    made = oc.SkewOrthogonalConv2d(4, 4, k, bias=False, mode=mode)
    expected = copy.deepcopy(made)
    start(made.filter)
    x = torch.randn(2, 4, 9, 9)
    for training in (True, True, False):
        y = made.train(training)(x)
        assert torch.equal(y, x)
        (y * torch.randn(y.shape)).sum().backward()
        assert made.filter.grad.isfinite().all() and made.filter.grad.any()
    with torch.no_grad():
        made.filter.copy_(expected.filter)
    assert torch.equal(made.train()(x), expected.train()(x))


@pytest.mark.parametrize("mode", ["composed", "series"])
@pytest.mark.parametrize("channels", [(3, 8), (8, 3)])
def test_one_image_without_a_batch(mode: str, channels: tuple[int, int]) -> None:
    made = oc.SkewOrthogonalConv2d(*channels, 3, mode=mode).eval()
    x = torch.randn(channels[0], 9, 9)
    assert torch.equal(made(x), made(x[None])[0])


def test_to_conv2d_draws_no_random_numbers() -> None:
    made, before = oc.SkewOrthogonalConv2d(3, 8, 3), torch.get_rng_state()
    made.to_conv2d()
    oc.fold(nn.Sequential(made))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_scale_of_a_small_filter_does_not_matter() -> None:
    made = converged(layer(3, 8, 3)).train()
    expected = made.kernel()
    for _ in range(3):
        with torch.no_grad():
            made.filter.mul_(2.0**-10)
        torch.testing.assert_close(made.kernel(), expected)


@pytest.mark.parametrize("channels", [(3, 8), (5, 5), (8, 3)])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_kernel_is_rounded_once(
    channels: tuple[int, int], k: int, training: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    made = oc.SkewOrthogonalConv2d(*channels, k).to(dtype).train(training)
    wide = copy.deepcopy(made).float()
    for i in range(4):  # whose rounding has changed their length
        wide.get_buffer(f"left_{i}").copy_(F.normalize(made.get_buffer(f"left_{i}").float(), dim=0))
    kernel, exact = made.kernel(), wide.kernel()
    assert kernel.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(kernel.float(), exact, rtol=eps, atol=eps**2)
    x = torch.randn(2, channels[0], 14, 14).to(dtype)
    y = made.eval()(x)
    assert y.dtype == dtype and torch.isfinite(y).all()
    y.float().square().sum().backward()
    assert made.filter.grad.dtype == dtype and made.filter.grad.isfinite().all()
    conv = made.to_conv2d()
    assert conv.weight.dtype == dtype and torch.equal(conv(x), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_series_is_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made = oc.SkewOrthogonalConv2d(3, 6, 3, mode="series").to(dtype).eval()
    x = torch.randn(2, 3, 14, 14).to(dtype)
    exact = copy.deepcopy(made).float()(x.float())
    eps = torch.finfo(dtype).eps  # of the product and of the sum with the bias
    torch.testing.assert_close(made(x).float(), exact, rtol=2 * eps, atol=2 * eps)
