"""Weight treatments in half precision: computed in float32, and rounded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradgradcheck
from torch.func import jvp, vmap
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

import orthocond as oc
from orthocond.treatments import Treated
from orthocond.treatments.layer.matrix import from_matrix
from orthocond.treatments.ow_stiefel import _mapped

HALVES = [torch.bfloat16, torch.float16]
DTYPES = [*HALVES, torch.float64]
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "ow": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "ow 1x1": lambda: nn.Conv2d(3, 5, 1),
    "ow-stiefel": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "ow-stiefel tall": lambda: nn.Conv2d(3, 9, 1),
    "ow-stiefel square": lambda: nn.Conv2d(4, 4, 1),
    "ow-stiefel transposed": lambda: nn.ConvTranspose2d(4, 3, 3),
    "sn": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "sn linear": lambda: nn.Linear(6, 4),
}
weights = pytest.mark.parametrize("case", LAYERS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def made(case: str, dtype: torch.dtype, after: bool) -> tuple[nn.Sequential, Treated]:
    """Return a treated layer that gets its dtype before ``treat``, or after it."""
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[case]())
    model = model if after else model.to(dtype)
    treated = oc.treat(model, "0", f"nog+{case.split()[0]}+ol+olr")
    return model.to(dtype), treated


def inputs(model: nn.Sequential) -> Tensor:
    layer, dtype = model[0], next(model.parameters()).dtype
    if isinstance(layer, nn.Linear):
        return torch.randn(5, layer.in_features).to(dtype)
    return torch.randn(5, layer.in_channels, 6, 6).to(dtype)


def defect(treated: Treated) -> float:
    """Return the largest distance of a singular value from 1; for sn, of the largest one only."""
    s = torch.linalg.svdvals(treated.weight().double())
    s = s[:1] if "sn" in treated.treatments else s
    return (s - 1).abs().max().item()


@pytest.mark.parametrize("case", [case for case in LAYERS if case != "ow"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_backward_inside_autocast_has_the_gradient_of_one_outside(
    case: str, compiled: bool
) -> None:
    torch._dynamo.reset()
    model, treated = made(case, torch.float32, True)
    kernel = treated.layer.kernel if hasattr(treated.layer, "kernel") else None
    weight = kernel or (lambda: treated.layer.weight)
    weight = torch.compile(weight, backend="aot_eager") if compiled else weight
    model.eval()
    g, gradients = torch.randn_like(weight()), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gradients += torch.autograd.grad(weight(), treated.parameter, g)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_derivatives_of_ow_stiefel_are_those_of_torchs_parametrization(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    layer = oc.treat(nn.Sequential(nn.Linear(*shape)).double(), "0", "ow-stiefel").layer
    matrix = layer.parametrizations.weight[0].matrix
    plain = matrix.parametrizations.weight[0]
    X, dX = 0.3 * torch.randn(2, *matrix.weight.shape, dtype=torch.float64)
    ours = partial(_mapped, base=plain.base)
    assert torch.equal(ours(X), plain(X))
    for a, b in zip(jvp(ours, (X,), (dX,)), jvp(plain, (X,), (dX,)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(vmap(ours)(torch.stack([X, dX])), torch.stack([plain(X), plain(dX)]))
    assert gradgradcheck(ours, X.requires_grad_())


@weights
@pytest.mark.parametrize("assign", [False, True])
def test_a_treated_layer_on_the_meta_device(case: str, assign: bool) -> None:
    """It infers shapes, and is as the original after its state dict is loaded."""
    expected, treated = made(case, torch.float32, True)
    with torch.device("meta"):
        model = nn.Sequential(LAYERS[case]())
    ours = oc.treat(model, "0", f"{case.split()[0]}+ol")
    x = inputs(expected)
    for training in (True, False):
        y = model.train(training)(x.to("meta"))
        (y.sum() + ours.penalty()).backward()
        assert y.is_meta and y.shape == expected(x).shape
        assert ours.weight().shape == treated.weight().shape
    state = expected.state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(state, assign=assign)
    assert torch.equal(model(x), expected.eval()(x))


def test_autocast_on_cuda_does_not_round_the_spectral_norm() -> None:
    """Seen by the dtype that torch.mv has under CUDA's autocast, for tensors without data."""
    layer = oc.treat(nn.Sequential(nn.Linear(6, 4)), "0", "sn").layer
    norm = layer.parametrizations.weight[0]
    found = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            y = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mv.default:
                found.append(y.dtype)
            return y

    # torch.autocast("cuda") does nothing on a machine without a GPU.
    torch.set_autocast_enabled("cuda", True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Seen():
            weight = torch.empty(4, 6, device="cuda")
            torch.mv(weight, weight[0])
            norm._buffers.update({"_u": weight[:, 0].clone(), "_v": weight[0].clone()})
            norm(weight)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert found == [torch.float16, *[torch.float32] * 3]


@weights
@dtypes
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_forward_backward_step_and_remove(case: str, dtype: torch.dtype, after: bool) -> None:
    model, treated = made(case, dtype, after)
    optimizer = SGD(model.parameters(), lr=0.05)
    treated.bind(optimizer)
    x = inputs(model)
    for _ in range(2):
        optimizer.zero_grad()
        y = model(x)
        assert y.dtype == dtype and y.isfinite().all()
        (y.double().square().mean() + treated.penalty()).backward()
        assert treated.parameter.grad.dtype == dtype and treated.parameter.grad.isfinite().all()
        before = treated.parameter.detach().clone()
        optimizer.step()
        assert treated.last.finite and not torch.equal(before, treated.parameter.detach())
    assert treated.parameter.dtype == dtype
    if case != "ow":  # ow's kernel is orthogonal as a convolution, not as a matrix
        assert defect(treated) < max(2 * torch.finfo(dtype).eps, 1e-6)
    weight, expected = treated.weight(), model.eval()(x).detach()
    layer = treated.remove()
    assert layer.weight.dtype == dtype
    assert torch.equal(layer.weight.detach(), from_matrix(weight, layer.weight, type(layer)))
    assert torch.equal(model(x).detach(), expected)


@weights
@dtypes
def test_a_state_dict_round_trip(case: str, dtype: torch.dtype) -> None:
    (model, treated), (other, twin) = made(case, dtype, True), made(case, dtype, False)
    assert model.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(model.state_dict())
    assert torch.equal(treated.weight(), twin.weight())
    x = inputs(model)
    assert torch.equal(model(x), other(x))  # both run the same power iterations


@weights
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_weight_is_computed_in_float32_and_then_rounded(case: str, dtype: torch.dtype) -> None:
    """Compare with float64 arithmetic on the same rounded parameters and buffers."""
    _, treated = made(case, dtype, True)
    rounded = treated.weight()
    treated.layer.double()
    exact = treated.weight()
    assert (rounded.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("case", ["ow-stiefel", "ow-stiefel tall", "ow-stiefel square"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_ow_stiefel_is_orthogonal_again_after_a_narrow_dtype(case: str, dtype: torch.dtype) -> None:
    for back, limit in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        model, treated = made(case, dtype, True)
        narrow = model.state_dict()
        assert defect(treated) < 2 * torch.finfo(dtype).eps
        model.to(back)
        assert defect(treated) < limit
        fresh, loaded = made(case, back, True)
        fresh.load_state_dict(narrow)
        assert defect(loaded) < limit


def test_an_orthogonal_base_is_loaded_to_the_bit() -> None:
    (model, treated), (other, twin) = (made("ow-stiefel", torch.float32, False) for _ in "ab")
    state = {name: t.clone() for name, t in model.state_dict().items()}
    other.load_state_dict(state)
    for name, t in other.state_dict().items():
        assert torch.equal(t, state[name])
    assert torch.equal(treated.weight(), twin.weight())


@weights
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_under_autocast_a_half_layer_computes_its_weight_in_float32(
    case: str, dtype: torch.dtype
) -> None:
    model, treated = made(case, dtype, True)
    model.eval()
    x, weight = inputs(model), treated.weight()
    y = model(x)
    with torch.autocast("cpu", dtype):
        assert torch.equal(treated.weight(), weight)
        assert torch.equal(model(x), y)
        assert treated.penalty().dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_optimizer_gets_the_rounded_orthogonal_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3)).to(dtype)
    treated = oc.treat(model, "0", "nog")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    model(inputs(model)).float().square().sum().backward()
    G = treated.parameter.grad.detach().double().flatten(1)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    optimizer.step()
    assert torch.equal(treated.parameter.grad.flatten(1), (U @ Vh).to(dtype))
    assert treated.last.gradient_kappa_after == pytest.approx(1, abs=4 * torch.finfo(dtype).eps)
