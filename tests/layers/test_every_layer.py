"""What every layer has to survive: meta devices, copies, conversions and inputs of other dtypes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from forms import WHITENING
from torch import Tensor, nn

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers.covariance_pool import CovarianceRoot
from orthocond.spectral.verification import vectors

POOLS = ("low-rank", "eigh", "newton-schulz", "average")
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "whitening": partial(oc.DecorrelatedBatchNorm2d, 6, eps=1e-3, momentum=None),
    "whitening by groups": partial(oc.DecorrelatedBatchNorm2d, 6, groups=2),
    "whitening, newton-schulz": partial(oc.DecorrelatedBatchNorm2d, 6, solver="newton-schulz"),
    "whitening, untracked": partial(oc.DecorrelatedBatchNorm2d, 6, track_running_stats=False),
    "whitening, running root": partial(oc.DecorrelatedBatchNorm2d, 6, running="root"),
    "whitening of vectors": partial(oc.DecorrelatedBatchNorm1d, 6, eps=1e-3),
    "whitening of sequences": partial(oc.DecorrelatedBatchNorm1d, 6, eps=1e-3),
    "whitening of volumes": partial(oc.DecorrelatedBatchNorm3d, 6, eps=1e-3),
    **{f"pooling, {s}": partial(oc.GlobalCovariancePool2d, 6, 5, s) for s in POOLS},
    "pooling, log": partial(oc.GlobalCovariancePool2d, 6, 5, eps=1e-2, normalization="log"),
    "pooling, power": partial(oc.GlobalCovariancePool2d, 6, 5, normalization="power", power=0.7),
    "root": CovarianceRoot,
    "skew": partial(oc.SkewOrthogonalConv2d, 6, 8, 3),
    "skew, series": partial(oc.SkewOrthogonalConv2d, 6, 8, 3, mode="series"),
    "skew, 1x1": partial(oc.SkewOrthogonalConv2d, 6, 8, 1),
}
SHAPED: dict[str, Callable[[Tensor], Tensor]] = {
    "whitening of vectors": lambda x: x.movedim(1, 3).flatten(0, 2),
    "whitening of sequences": lambda x: x.flatten(2),
    "whitening of volumes": lambda x: x.unflatten(2, (3, 4)),
}
EVERY = pytest.mark.parametrize("name", LAYERS)
HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])


def images(seed: int = 0) -> Tensor:
    """Correlated channels of a condition number of 1e4, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 6, 12, 12, generator=generator) * torch.logspace(0, -2, 6).view(6, 1, 1)
    mixed = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    return torch.einsum("ij,bjhw->bihw", torch.linalg.qr(mixed).Q, x) + 1


def inputs(name: str, seed: int = 0) -> Tensor:
    """Images in the shape that the layer takes."""
    return SHAPED.get(name, lambda x: x)(images(seed))


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for seed in range(5):
        layer(inputs(name, seed))
    return layer


def distance(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        layer = LAYERS[name]()
    tensors = [*layer.parameters(), *layer.buffers()]
    assert all(t.is_meta for t in tensors)
    return layer


def emptied(layer: nn.Module) -> nn.Module:
    """On the CPU, with what an unlucky allocation holds."""
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        for t in (*layer.parameters(), *layer.buffers()):
            t.fill_(torch.nan if t.is_floating_point() else 10**6)
    return layer


def assert_equal(name: str, ours: nn.Module, expected: nn.Module) -> None:
    """In evaluation and in a step of training."""
    assert list(ours.state_dict()) == list(expected.state_dict())
    for training in (False, True):
        ours.train(training), expected.train(training)
        assert torch.equal(ours(inputs(name, 50)), expected(inputs(name, 50)))
    for key, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "root"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_device_and_dtype_are_arguments(name: str, dtype: torch.dtype) -> None:
    build = LAYERS[name]
    torch.manual_seed(0)
    ours = build(dtype=dtype)
    with torch.device("meta"):
        expected = build().to(dtype)
    assert list(ours.state_dict()) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        assert ours.state_dict()[key].dtype == value.dtype, key
    y = ours(inputs(name).to(dtype))
    assert y.dtype == dtype and y.isfinite().all()
    on_device = build(device="meta", dtype=dtype)
    for t in (*on_device.parameters(), *on_device.buffers()):
        assert t.is_meta


@EVERY
def test_built_on_the_meta_device_and_loaded(name: str) -> None:
    expected = trained(name)
    state = copy.deepcopy(expected.state_dict())
    assigned, filled = on_meta(name), emptied(on_meta(name))
    assigned.load_state_dict(copy.deepcopy(state), assign=True)
    filled.load_state_dict(state)
    for ours in (assigned, filled):
        assert_equal(name, ours, copy.deepcopy(expected))


@EVERY
def test_emptied_and_reset_it_is_as_new(name: str) -> None:
    """The path of tools that draw weights anew after ``to_empty``."""
    torch.manual_seed(0)
    expected = LAYERS[name]()
    ours = emptied(on_meta(name))
    torch.manual_seed(0)
    for module in ours.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    assert_equal(name, ours, expected)


def passed(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the gradients of a forward and a backward pass, and the state after it."""
    x = x.requires_grad_()
    y = layer(x)
    y.backward(y.detach().square())
    gradients = [p.grad for p in (x, *layer.parameters()) if p.grad is not None]
    return [y, *gradients, *layer.state_dict().values()]


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_torchs_default_device_changes_no_pass(name: str, training: bool) -> None:
    layer = trained(name).train(training)
    expected = passed(copy.deepcopy(layer), inputs(name))
    vectors.cache_clear()
    x = inputs(name)
    with torch.device("meta"):
        found = passed(layer, x)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


MORE: dict[str, Callable[[], nn.Module]] = {
    "whitening, minimax": partial(oc.DecorrelatedBatchNorm2d, 6, solver="minimax", groups=2),
    "pooling, minimax": partial(oc.GlobalCovariancePool2d, 6, 5, "minimax", eps=1e-2),
}


@pytest.mark.parametrize("name", [*LAYERS, *MORE])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_gradients_is_that_of_each(name: str, training: bool) -> None:
    """As torch.autograd.functional.jacobian(vectorize=True) computes a Jacobian."""
    torch.manual_seed(0)
    layer = (LAYERS | MORE)[name]().double()
    x = inputs(name).double().requires_grad_()
    if not training:
        layer(x)
    y = layer.train(training)(x)
    given = [t for t in (x, *layer.parameters()) if t.requires_grad]
    v = torch.randn(3, *y.shape, dtype=y.dtype)
    found = torch.autograd.grad(y, given, v, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, given, g, retain_graph=True) for g in v]
    for ours, theirs in zip(found, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-9)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_shapes_are_inferred_on_the_meta_device(name: str, training: bool) -> None:
    layer, x = on_meta(name).train(training), inputs(name).to("meta").requires_grad_()
    y = layer(x)
    assert y.is_meta and y.shape == trained(name)(inputs(name)).shape
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@EVERY
def test_copies(name: str) -> None:
    expected = trained(name)
    for ours in (copy.deepcopy(expected), pickle.loads(pickle.dumps(expected))):
        assert_equal(name, ours, copy.deepcopy(expected))


@EVERY
@HALVES
def test_a_network_in_half_precision(name: str, half: torch.dtype) -> None:
    """Evaluation is right to the rounding of input, weights and output; training stays finite."""
    expected = trained(name).eval()
    ours = copy.deepcopy(expected).to(half)
    x = inputs(name, 50).to(half)
    with torch.no_grad():
        rounded = copy.deepcopy(expected)
        for p in rounded.parameters():
            p.copy_(p.to(half))
        y = ours(x)
        assert y.dtype == half
        assert distance(y, rounded(x.float())) < 2 * torch.finfo(half).eps
    ours.train()
    for seed in range(5):
        x = inputs(name, seed).to(half).requires_grad_()
        ours(x).float().square().mean().backward()
        assert all(t.grad.isfinite().all() for t in (x, *ours.parameters()))
    assert all(b.isfinite().all() for b in ours.buffers())


@HALVES
@pytest.mark.parametrize("form", WHITENING)
def test_running_statistics_are_as_precise_in_half_precision(form: str, half: torch.dtype) -> None:
    ours, expected = WHITENING[form](6, eps=1e-4, dtype=half), WHITENING[form](6, eps=1e-4)
    for seed in range(60):
        x = images(seed).to(half)
        ours(x), expected(x.float())
    for name in ("running_mean", "running_covariance"):
        assert ours.get_buffer(name).dtype == torch.float32
        assert distance(ours.get_buffer(name), expected.get_buffer(name)) < 1e-6
    x = images(70).to(half)
    assert distance(ours.eval()(x), expected.eval()(x.float())) < torch.finfo(half).eps
    assert ours.double().running_covariance.dtype == torch.float64
    assert ours.to(half).running_covariance.dtype == torch.float32
    assert ours.to("meta", half).running_covariance.device.type == "meta"


def gradients(layer: nn.Module, model: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Of x and all parameters, for a loss that weighs every output by another number."""
    x = x.clone().requires_grad_()
    y = model(x)
    by = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    return list(torch.autograd.grad(y, (x, *layer.parameters()), by))


@pytest.mark.parametrize("name", [name for name in LAYERS if "skew" not in name])
def test_a_backward_pass_inside_autocast_is_not_rounded(name: str) -> None:
    layer, x = trained(name), inputs(name)
    other = copy.deepcopy(layer)
    expected = gradients(other, other, x)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(layer, layer, x)
    assert all(map(torch.equal, ours, expected))


@pytest.mark.parametrize("name", ["whitening", "whitening, newton-schulz", "pooling, low-rank"])
def test_compiled_under_autocast_the_backward_pass_is_not_rounded(name: str) -> None:
    """AOTAutograd traces it under the autocast of the caller."""
    layer = trained(name)
    other = copy.deepcopy(layer)
    expected = gradients(other, other, inputs(name))
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager")

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return compiled(x)

    ours = gradients(layer, model, inputs(name))
    for a, b in zip(ours, expected, strict=True):
        assert distance(a, b) < 1e-5


@EVERY
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_integers_and_complex_numbers_are_refused(
    name: str, dtype: torch.dtype, training: bool
) -> None:
    layer = LAYERS[name]().train(training)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(UserError, match=f"expected an input of a real floating dtype, got {dtype}"):
        layer(inputs(name).to(dtype))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match="floating dtype"):
        layer(inputs(name).to(dtype))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@EVERY
def test_synchronised_batch_norm_does_not_replace_it(name: str) -> None:
    network = nn.Sequential(LAYERS[name](), nn.BatchNorm2d(3))
    layer = network[0]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert converted[0] is layer and type(converted[1]) is nn.SyncBatchNorm
    assert not isinstance(layer, nn.modules.batchnorm._BatchNorm)
