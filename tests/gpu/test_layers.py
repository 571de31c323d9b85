"""Functions and layers on CUDA against the same on the CPU, in float64.

The solvers are others (cuSOLVER for LAPACK), so eigenvectors may differ in sign and order, and what
is made of them may not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from forms import WHITENING, OfSequences, OfVectors, OfVolumes, shaped
from reference import by_condition, whiten
from torch import Tensor, nn

import orthocond as oc

pytestmark = pytest.mark.gpu

D, KAPPA = 16, 1e4
CLOSE = 1e-10  # float64's 1e-16, of which nothing here is amplified by more than D KAPPA = 2e5
RULES = [("eigh", rule) for rule in ("exact", "pade", "taylor", "raw")]
ROOTS = [
    partial(function, solver=solver, backward=rule, eps=1e-6)
    for function, (solver, rule) in product(
        (oc.matrix_sqrt, oc.matrix_inv_sqrt), [*RULES, ("newton-schulz", "exact")]
    )
]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def both(function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> list[Tensor]:
    """Value and gradient, computed on a device and brought back."""
    x = x.to(device).requires_grad_()
    y = function(x)
    assert y.device.type == device.type
    y.backward(drawn(*y.shape, seed=9).to(device))
    assert x.grad is not None
    return [y.detach().cpu(), x.grad.cpu()]


def assert_close(ours: list[Tensor], expected: list[Tensor]) -> None:
    """In the Frobenius norm: a small entry beside large ones has their rounding."""
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).norm() <= CLOSE * b.norm()


@pytest.mark.parametrize("function", ROOTS, ids=lambda f: f"{f.func.__name__} {f.keywords}")
def test_roots(function: Callable[[Tensor], Tensor], device: torch.device) -> None:
    P = torch.stack([by_condition(D, KAPPA, seed=seed) for seed in range(3)])
    assert_close(both(function, P, device), both(function, P, torch.device("cpu")))


@pytest.mark.parametrize("positions", [9, 16, 40])
def test_the_root_of_a_covariance(positions: int, device: torch.device) -> None:
    X = drawn(3, D, positions)
    ours = both(oc.covariance_sqrt, X, device)
    assert_close(ours, both(oc.covariance_sqrt, X, torch.device("cpu")))


@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
def test_the_polar_factor(method: str, device: torch.device) -> None:
    G = by_condition(D, KAPPA**0.5)[:, :9].contiguous()  # its square's condition is KAPPA
    for A in (G, G.mT):
        ours = oc.polar_factor(A.to(device), method)
        assert ours.device.type == device.type
        assert_close([ours.cpu()], [oc.polar_factor(A, method)])


@pytest.mark.parametrize("rule", ["paper", "newton", "exact"])
def test_the_optimal_learning_rate(rule: str, device: torch.device) -> None:
    W, G = drawn(8, 27) / 5, drawn(8, 27, seed=1)
    eta = oc.optimal_lr(W.to(device), G.to(device), rule)
    assert eta.item() == pytest.approx(oc.optimal_lr(W, G, rule).item(), rel=CLOSE)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dbn": (partial(oc.DecorrelatedBatchNorm2d, 8), (6, 8, 5, 5)),
    "dbn in groups": (partial(oc.DecorrelatedBatchNorm2d, 8, groups=2), (6, 8, 5, 5)),
    "dbn by newton-schulz": (
        partial(oc.DecorrelatedBatchNorm2d, 8, solver="newton-schulz"),
        (6, 8, 5, 5),
    ),
    "dbn of vectors": (partial(OfVectors, 8), (6, 8, 5, 5)),
    "dbn of sequences": (partial(OfSequences, 8, groups=2), (6, 8, 5, 5)),
    "dbn of volumes": (partial(OfVolumes, 8, running="root"), (6, 8, 5, 5)),
    "gcp": (partial(oc.GlobalCovariancePool2d, 5, 12), (4, 5, 3, 3)),
    "gcp by eigh": (partial(oc.GlobalCovariancePool2d, 5, 8, solver="eigh"), (4, 5, 5, 5)),
    "gcp by newton-schulz": (
        partial(oc.GlobalCovariancePool2d, 5, 8, solver="newton-schulz"),
        (4, 5, 5, 5),
    ),
    "gcp, log": (
        partial(oc.GlobalCovariancePool2d, 5, 12, eps=1e-2, normalization="log"),
        (4, 5, 3, 3),
    ),
    "gcp, power": (
        partial(oc.GlobalCovariancePool2d, 5, 12, normalization="power", power=0.7),
        (4, 5, 3, 3),
    ),
    "gcp, power by eigh": (
        partial(oc.GlobalCovariancePool2d, 5, 8, "eigh", normalization="power", power=0.3),
        (4, 5, 5, 5),
    ),
    "soc": (partial(oc.SkewOrthogonalConv2d, 3, 8, 3), (2, 3, 9, 9)),
    "soc as a series": (partial(oc.SkewOrthogonalConv2d, 3, 8, 3, mode="series"), (2, 3, 9, 9)),
    "soc 1x1": (partial(oc.SkewOrthogonalConv2d, 3, 8, 1), (2, 3, 9, 9)),
}


def trained(layer: nn.Module, x: Tensor, device: torch.device) -> list[Tensor]:
    """Output and gradients of a training step, the buffers after it, the output of evaluation."""
    layer = copy.deepcopy(layer).to(device)
    y, gradient = both(layer, x, device)
    gradients = [p.grad.cpu() for p in layer.parameters() if p.grad is not None]
    buffers = [b.double().cpu() for b in layer.buffers()]
    with torch.no_grad():
        evaluated = layer.eval()(x.to(device)).cpu()
    return [y, gradient, *gradients, *buffers, evaluated]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, layout: torch.memory_format, device: torch.device) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = build().double()
    x = (drawn(*shape) + 1).to(memory_format=layout)
    assert_close(trained(layer, x, device), trained(layer, x, torch.device("cpu")))


@pytest.mark.parametrize("form", WHITENING)
def test_whitening_in_float32_is_within_1e_5_of_float64(form: str, device: torch.device) -> None:
    x, g = drawn(24, 64, 16, 16).float(), drawn(24, 64, 16, 16, seed=1).float()
    on_device = x.to(device).requires_grad_()
    y = WHITENING[form](64, device=device)(on_device)
    y.backward(g.to(device))
    assert on_device.grad is not None
    expected, gradient = whiten(x, 1e-2, g)
    for ours, reference in ((y.detach(), expected), (on_device.grad, gradient)):
        assert (ours.cpu().double() - reference).norm() < 1e-5 * reference.norm()


@pytest.mark.parametrize("form", WHITENING)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_that_can_not_be_whitened_is_counted(
    bad: float, form: str, device: torch.device
) -> None:
    norm = WHITENING[form](4).double().to(device)
    x = drawn(4, 4, 3, 3).to(device)
    x[0, 0, 0, 0] = bad
    assert norm(x).isnan().all()
    assert (norm.outcomes.failures, norm.outcomes.unrecovered) == (1, 1)
    assert torch.equal(norm.running_covariance[0], torch.eye(4, device=device).double())


def test_a_sample_that_can_not_be_pooled_gives_zeros(device: torch.device) -> None:
    pool = oc.GlobalCovariancePool2d(3, 4).double().to(device).eval()
    x = drawn(3, 3, 4, 4).to(device)
    others = pool(x)[1:]
    x[0, 0, 0, 0] = float("nan")
    y = pool(x)
    assert y[0].eq(0).all() and torch.equal(y[1:], others) and pool.outcomes.unrecovered == 1


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_probe(per_sample: bool, device: torch.device) -> None:
    x = drawn(6, 8, 5, 5)
    records = []
    for where in (device, torch.device("cpu")):
        layer = nn.Identity().to(where)
        model = nn.Sequential(layer)
        with oc.ConditioningProbe(model, "0", 1, per_sample, eps=1e-2, channel_dim=1) as probe:
            layer(x.to(where))
        records.append(probe.records[0].row())
    ours, expected = records
    assert ours.keys() == expected.keys()
    for name, value in expected.items():  # a phase is a string, an undefined figure None
        number = isinstance(value, float)
        assert ours[name] == (pytest.approx(value, rel=CLOSE) if number else value), name


@pytest.mark.parametrize("form", WHITENING)
def test_recalibration(form: str, device: torch.device) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(), WHITENING[form](8)).double()
    batches = [shaped(model[1], drawn(4, 8, 6, 6, seed=seed)) for seed in range(3)]
    statistics = []
    for where in (device, torch.device("cpu")):
        ours = copy.deepcopy(model).to(where)
        oc.recalibrate(ours, batches)
        statistics.append([b.double().cpu() for b in ours.buffers()])
    assert_close(*statistics)
