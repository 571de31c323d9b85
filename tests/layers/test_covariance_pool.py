"""Covariance pooling against the plain definition, with injected faults, in every precision."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import reference
import scipy.linalg
import torch
import torchvision
from torch import Tensor, nn

from orthocond.errors import UserError
from orthocond.layers.covariance_pool import CovarianceRoot, GlobalCovariancePool2d
from orthocond.spectral.newton_schulz import newton_schulz
from orthocond.spectral.roots import matrix_sqrt

SPECTRAL = ["low-rank", "eigh", "newton-schulz"]
SOLVERS = [*SPECTRAL, "average"]
NAN = float("nan")


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pool(channels: int, out: int, solver: str = "low-rank", backward: str = "exact"):
    torch.manual_seed(0)
    return GlobalCovariancePool2d(channels, out, solver, backward)


def both(root: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient for dl/doutput = g."""
    x = x.detach().clone().requires_grad_()
    y = root(x)
    y.backward(g.to(y.dtype))
    return y.detach(), x.grad


@pytest.mark.parametrize(
    ("solver", "shape", "tolerance"),
    [
        ("low-rank", (2, 6, 5, 4), 1e-6),
        ("low-rank", (2, 9, 2, 3), 1e-4),  # that of the reference's ridge
        ("eigh", (2, 6, 5, 4), 1e-6),
        ("eigh", (2, 9, 2, 3), 1e-4),
        ("newton-schulz", (2, 3, 5, 4), 0.2),
    ],
)
def test_it_is_the_root_of_each_samples_covariance(solver, shape, tolerance):
    x, g = images(*shape).relu(), images(shape[0], shape[1], shape[1], seed=9)
    Q, gradient = both(CovarianceRoot(solver), x, g)
    assert Q.dtype == gradient.dtype == torch.float32
    for i in range(shape[0]):
        X = x[i].flatten(1)
        expected, expected_gradient = reference.covariance_sqrt(X, 1e-10, g[i])
        assert torch.dist(Q[i], expected) < tolerance * expected.norm()
        assert torch.dist(gradient[i].flatten(1), expected_gradient) < (
            tolerance * expected_gradient.norm()
        )


def test_newton_schulz_takes_five_steps_scaled_by_the_trace():
    x = images(2, 6, 5, 4)
    P = reference.covariance(x.flatten(2))
    Q = CovarianceRoot("newton-schulz")(x)
    torch.testing.assert_close(Q.double(), newton_schulz(P, 5)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("backward", ["exact", "pade", "taylor", "raw"])
def test_the_full_path_has_the_rules_of_matrix_sqrt(backward):
    x, g = images(2, 5, 5, 4).double(), images(2, 5, 5, seed=9).double()
    _, ours = both(CovarianceRoot("eigh", backward), x, g)

    def definition(x: Tensor) -> Tensor:
        X = x.flatten(2)
        X = X - X.mean(-1, keepdim=True)
        return matrix_sqrt(X @ X.mT / X.shape[-1], backward=backward, eps=1e-10)

    torch.testing.assert_close(ours, both(definition, x, g)[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backward", ["exact", "pade", "taylor"])
def test_below_full_rank_the_rules_are_finite(backward):
    layer = pool(5, 12, "eigh", backward)
    layer(images(4, 5, 3, 3)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("solver", SPECTRAL)
def test_the_output_is_the_upper_triangle_by_rows(solver):
    layer = pool(4, 3, solver).eval()
    x = images(2, 4, 5, 5)
    Q = layer.root(layer.relu(layer.norm(layer.reduction(x))))
    expected = [Q[:, 0, 0], Q[:, 0, 1], Q[:, 0, 2], Q[:, 1, 1], Q[:, 1, 2], Q[:, 2, 2]]
    assert torch.equal(layer(x), torch.stack(expected, 1))


def test_average_is_the_control_without_a_covariance():
    layer = pool(4, 3, "average").eval()
    x = images(2, 4, 5, 5)
    expected = layer.norm(layer.reduction(x)).relu().mean((2, 3))
    torch.testing.assert_close(layer(x), expected)
    assert repr(layer.outcomes) == "SpectralOutcomes(failures=0, unrecovered=0)"


@pytest.mark.parametrize("solver", ["low-rank", "eigh"])
def test_gradcheck_through_the_whole_layer(solver):
    layer = pool(3, 4, solver).double()
    x = images(3, 3, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-7, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_seeds_draw_equal_weights_and_state_makes_a_round_trip(solver):
    first, second = pool(4, 3), GlobalCovariancePool2d(4, 3, solver)
    expected = [
        "reduction.weight",
        *(f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
        "norm.num_batches_tracked",
    ]
    assert list(second.state_dict()) == expected
    assert torch.equal(first.reduction.weight, pool(4, 3, solver).reduction.weight)
    second(images(2, 4, 3, 3))
    third = GlobalCovariancePool2d(4, 3, solver)
    third.load_state_dict(second.state_dict())
    x = images(2, 4, 3, 3, seed=1)
    y = second.eval()(x)
    assert torch.equal(third.eval()(x), y)
    assert torch.equal(copy.deepcopy(second)(x), y)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(solver, half):
    layer, x = pool(4, 6, solver), images(3, 4, 2, 3).to(half)
    plain = layer(x.float())
    plain.square().sum().backward()
    expected = layer.reduction.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", half):
        y = layer(x)
        y.square().sum().backward()
    assert y.dtype == torch.float32 and torch.equal(y, plain)
    assert torch.equal(layer.reduction.weight.grad, expected)


@pytest.mark.parametrize("solver", SPECTRAL)
@pytest.mark.parametrize("shape", [(2, 4, 2, 1), (2, 4, 1, 2), (1, 4, 3, 3), (0, 4, 3, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_any_number_of_positions_and_samples(solver, shape, training):
    layer = pool(4, 6, solver).train(training)
    y = layer(images(*shape))
    y.sum().backward()
    assert y.shape == (shape[0], 21) and y.isfinite().all()
    assert layer.reduction.weight.grad.isfinite().all()
    assert layer.outcomes.failures == 0
    if shape[0] == 0:
        assert layer.norm.running_mean.eq(0).all() and layer.norm.running_var.eq(1).all()


@pytest.mark.parametrize("solver", SPECTRAL)
@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (8, 4, 1, 1), (2, 4, 0, 3), (0, 4, 1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_a_single_position_has_no_covariance(solver, shape, training):
    layer = pool(4, 6, solver).train(training)
    before = copy.deepcopy(layer.state_dict())
    message = (
        rf"^a covariance needs positions, at least 2 per image, got an input of shape "
        rf"{re.escape(str(shape))}: use larger images or a smaller stride, or pool earlier$"
    )
    for module in (layer, CovarianceRoot(solver)):
        with pytest.raises(UserError, match=message):
            module(images(*shape))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_deep_network_at_32_pixels_gets_advice():
    """torchvision's ResNet has halved 32 pixels five times where it pools."""
    network = torchvision.models.resnet18()
    network.avgpool = pool(512, 16)
    network.fc = nn.Linear(136, 10)
    with pytest.raises(
        UserError, match=r"got an input of shape \(2, 512, 1, 1\): use larger images"
    ):
        network(images(2, 3, 32, 32))
    network.layer4[0].conv1.stride = network.layer4[0].downsample[0].stride = (1, 1)
    network(images(2, 3, 32, 32)).square().sum().backward()
    assert network.conv1.weight.grad.abs().max() > 0


def test_the_average_of_a_single_position_is_its_value():
    layer = pool(4, 3, "average")
    x = images(8, 4, 1, 1)
    y = layer(x)
    y.square().sum().backward()
    assert layer.reduction.weight.grad.abs().max() > 0
    expected = layer.norm(layer.reduction(x)).relu().flatten(1)
    torch.testing.assert_close(y, expected)
    with pytest.raises(UserError, match="an average needs positions, at least 1 per image"):
        layer(images(8, 4, 0, 1))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(4,), (2, 4), (4, 3, 3), (2, 4, 3, 3, 3)])
def test_other_shapes_are_named(solver, shape):
    for module in (pool(4, 3, solver), CovarianceRoot(solver)):
        with pytest.raises(UserError, match=r"an input of shape \(B, C, H, W\), got \("):
            module(images(*shape))


@pytest.mark.parametrize("solver", SPECTRAL)
@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("shape", [(3, 4, 3, 3), (3, 9, 2, 2)])
def test_a_sample_that_is_not_finite_is_zero_counted_and_alone(solver, bad, shape):
    root, x = CovarianceRoot(solver), images(*shape)
    g = images(3, shape[1], shape[1], seed=9)
    clean = both(root, x, g)
    assert root.outcomes.failures == 0
    x[1, 2, 0, 0] = bad
    for step in (1, 2):
        broken = both(root, x, g)
        assert (root.outcomes.failures, root.outcomes.unrecovered) == (step, step)
    for ours, theirs in zip(broken, clean, strict=True):
        assert not ours[1].any()
        torch.testing.assert_close(ours[::2], theirs[::2])


def raises(P: Tensor) -> object:
    raise torch.linalg.LinAlgError("injected: did not converge")


def spoils(P: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(P[..., 0], NAN), torch.full_like(P, NAN)


def spoils_one(P: Tensor) -> tuple[Tensor, Tensor]:
    """NaN, without raising, for the second matrix of a batch, and for it alone too."""
    values, vectors = EIGH(P)
    if P.dim() == 3:
        values[1] = NAN
        spoils_one.victim = P[1].clone()
    elif torch.equal(P, spoils_one.victim):
        return spoils(P)
    return values, vectors


EIGH = torch.linalg.eigh


@pytest.mark.parametrize("solver", ["low-rank", "eigh"])
@pytest.mark.parametrize(("fault", "failures"), [(raises, 3), (spoils, 3), (spoils_one, 1)])
def test_a_failed_decomposition_is_retried_and_counted(
    solver: str, fault: Callable, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, x, g = CovarianceRoot(solver), images(3, 6, 3, 4), images(3, 6, 6, seed=9)
    expected = both(root, x, g)
    monkeypatch.setattr(torch.linalg, "eigh", fault)
    for ours, theirs in zip(both(root, x, g), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (root.outcomes.failures, root.outcomes.unrecovered) == (failures, 0)


@pytest.mark.parametrize("solver", ["low-rank", "eigh"])
def test_what_no_driver_decomposes_is_left_out_of_the_batch(solver, monkeypatch):
    """Training goes on: every gradient is finite, and the count says what happened."""
    layer, x = pool(4, 6, solver), images(3, 4, 2, 3)
    monkeypatch.setattr(torch.linalg, "eigh", raises)
    monkeypatch.setattr(torch.linalg, "svd", raises)
    y = layer(x)
    y.square().sum().backward()
    assert not y.any()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())
    assert (layer.outcomes.failures, layer.outcomes.unrecovered) == (3, 3)


def test_a_probe_sees_the_features_whose_covariance_is_decomposed():
    layer, seen = pool(4, 6), []
    layer.root.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(images(2, 4, 3, 5))
    assert seen[0].shape == (2, 6, 3, 5) and seen[0].min() == 0


def test_its_settings_are_shown():
    assert "CovarianceRoot(solver='eigh', backward='taylor')" in repr(pool(4, 3, "eigh", "taylor"))


@pytest.mark.parametrize(
    ("solver", "backward", "message"),
    [
        ("eig", "exact", "unknown solver 'eig': allowed are .*did you mean 'eigh'"),
        ("eigh", "tailor", "unknown backward 'tailor': allowed are .*did you mean 'taylor'"),
        (
            "low-rank",
            "pade",
            "'low-rank' allows only backward 'exact', got 'pade': use .*'eigh'",
        ),
        (
            "newton-schulz",
            "raw",
            "'newton-schulz' allows only backward 'exact', got 'raw': use .*'eigh'",
        ),
    ],
)
def test_wrong_settings_are_named(solver, backward, message):
    with pytest.raises(UserError, match=message):
        GlobalCovariancePool2d(4, 3, solver, backward)


NORMALIZED: list[dict[str, Any]] = [
    {"normalization": "log", "eps": 0.05},
    {"normalization": "power", "power": 0.3},
    {"normalization": "power", "power": 0.8, "solver": "eigh"},
]
every_normalization = pytest.mark.parametrize("settings", NORMALIZED, ids=str)


@every_normalization
def test_the_normalization_is_a_function_of_each_samples_covariance(settings) -> None:
    layer = GlobalCovariancePool2d(4, 3, **settings).double().eval()
    x = images(2, 4, 5, 5).double()
    y = layer(x)
    X = layer.relu(layer.norm(layer.reduction(x))).flatten(2).detach()
    for pooled, sample in zip(y, X, strict=True):
        P = (sample.cov(correction=0) + settings.get("eps", 0) * torch.eye(3).double()).numpy()
        log = settings["normalization"] == "log"
        F = (
            scipy.linalg.logm(P)
            if log
            else scipy.linalg.fractional_matrix_power(P, layer.root.power)
        )
        expected = torch.from_numpy(F.real)[*torch.triu_indices(3, 3)]
        torch.testing.assert_close(pooled, expected, rtol=1e-10, atol=1e-12)
    assert layer.outcomes.failures == 0


@pytest.mark.parametrize("solver", ["low-rank", "eigh"])
@pytest.mark.parametrize("shape", [(3, 4, 3, 3), (3, 9, 2, 3)])
def test_power_one_half_is_the_root_and_one_the_covariance(solver, shape) -> None:
    x, g = images(*shape).double(), images(3, shape[1], shape[1], seed=9).double()
    root = both(CovarianceRoot(), x, g)
    half = both(CovarianceRoot(solver, normalization="power"), x, g)
    torch.testing.assert_close(half, root, rtol=1e-9, atol=1e-11)
    F, gradient = both(CovarianceRoot(solver, normalization="power", power=1.0), x, g)
    X = x.flatten(2)
    torch.testing.assert_close(F, reference.covariance(X), rtol=1e-12, atol=1e-12)
    Y = X - X.mean(-1, keepdim=True)
    expected = (g + g.mT) @ Y / X.shape[-1]
    torch.testing.assert_close(gradient.flatten(2), expected, rtol=1e-12, atol=1e-12)


def test_the_default_normalization_is_the_root() -> None:
    x, g = images(3, 6, 3, 4), images(3, 6, 6, seed=9)
    for solver in SPECTRAL:
        ours = both(CovarianceRoot(solver, normalization="sqrt", power=0.5), x, g)
        for a, b in zip(ours, both(CovarianceRoot(solver), x, g), strict=True):
            assert torch.equal(a, b)


@every_normalization
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_a_normalization(settings, half) -> None:
    torch.manual_seed(0)
    layer = GlobalCovariancePool2d(4, 6, **settings)
    x, seen = images(3, 4, 2, 3).to(half), []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", half, enabled=enabled):
            y = layer(x if enabled else x.float())
            y.square().sum().backward()
        seen.append((y, layer.reduction.weight.grad.clone()))
    for plain, ours in zip(*seen, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(plain, ours) and ours.isfinite().all()


@every_normalization
def test_a_sample_with_nan_is_zero_counted_and_alone(settings) -> None:
    root, x, g = CovarianceRoot(**settings), images(3, 4, 3, 3), images(3, 4, 4, seed=9)
    clean = both(root, x, g)
    assert root.outcomes.failures == 0
    x[1, 2, 0, 0] = NAN
    for ours, theirs in zip(both(root, x, g), clean, strict=True):
        assert not ours[1].any()
        torch.testing.assert_close(ours[::2], theirs[::2])
    assert (root.outcomes.failures, root.outcomes.unrecovered) == (1, 1)


@every_normalization
@pytest.mark.parametrize("shape", [(2, 4, 2, 1), (2, 4, 1, 2), (1, 4, 3, 3), (0, 4, 3, 3)])
def test_any_number_of_positions_and_samples_is_normalized(settings, shape) -> None:
    for training in (True, False):
        layer = GlobalCovariancePool2d(4, 6, **settings).train(training)
        y = layer(images(*shape))
        y.sum().backward()
        assert y.shape == (shape[0], 21) and y.isfinite().all()
        assert layer.reduction.weight.grad.isfinite().all() and layer.outcomes.unrecovered == 0


def test_a_dead_channel_is_counted_where_the_gradient_or_the_logarithm_does_not_exist() -> None:
    x, g = images(3, 4, 3, 3), images(3, 4, 4, seed=9)
    x[1, 2] = 7.0
    for settings, counts in [
        ({"normalization": "log"}, (1, 1)),
        ({"normalization": "log", "eps": 1e-2}, (0, 0)),
        ({"normalization": "power", "power": 0.3}, (1, 0)),
        ({"normalization": "power", "power": 0.5}, (0, 0)),
        ({"normalization": "power", "power": 0.7}, (0, 0)),
    ]:
        root = CovarianceRoot(**settings)
        F, gradient = both(root, x, g)
        assert (root.outcomes.failures, root.outcomes.unrecovered) == counts
        assert F.isfinite().all() and gradient.isfinite().all()
        assert F[1].any().item() == gradient[1].any().item() == (counts[1] == 0)


def test_a_logarithm_of_a_covariance_that_is_singular_by_its_shape_is_refused() -> None:
    for solver in ("low-rank", "eigh"):
        layer = GlobalCovariancePool2d(4, 6, solver, normalization="log")
        before = copy.deepcopy(layer.state_dict())
        with pytest.raises(
            UserError,
            match=r"^normalization 'log' needs more positions than channels or eps > 0: the "
            r"covariance of 6 channels over 6 positions is singular; use eps, larger images, fewer "
            r"channels or normalization 'sqrt'$",
        ):
            layer.eval()(images(2, 4, 2, 3))
        assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
        GlobalCovariancePool2d(4, 6, solver, normalization="log", eps=1e-2)(images(2, 4, 2, 3))
        GlobalCovariancePool2d(4, 5, solver, normalization="log").eval()(images(2, 4, 2, 3))


def test_a_normalization_compiled_is_the_eager_one() -> None:
    root = CovarianceRoot(normalization="log", eps=0.1)
    x, g = images(3, 4, 3, 3).double(), images(3, 4, 4, seed=9).double()
    ours = both(torch.compile(root, fullgraph=True, backend="aot_eager"), x, g)
    torch.testing.assert_close(ours, both(root, x, g), rtol=1e-11, atol=1e-12)


def test_a_normalization_is_shown_and_is_not_part_of_the_state() -> None:
    layer = GlobalCovariancePool2d(4, 3, normalization="power", power=0.3)
    assert "solver='low-rank', backward='exact', normalization='power', power=0.3)" in repr(layer)
    log = GlobalCovariancePool2d(4, 3, normalization="log", eps=0.1)
    assert "backward='exact', eps=0.1, normalization='log')" in repr(log)
    assert "normalization" not in repr(pool(4, 3))
    assert list(layer.state_dict()) == list(pool(4, 3).state_dict())
    log.load_state_dict(layer.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization": "root"}, "unknown normalization 'root': allowed are sqrt, log, power"),
        ({"normalization": "power", "power": 0}, "power must be a positive, finite number, got 0"),
        ({"normalization": "power", "power": NAN}, "power must be a positive.*got nan"),
        ({"normalization": "power", "power": "half"}, "power must be a positive.*got 'half'"),
        ({"normalization": "power", "power": True}, "power must be a positive.*got True"),
        ({"power": 0.3}, "power is for normalization 'power': leave it out for 'sqrt', got 0.3"),
        ({"normalization": "log", "power": 1.0}, "leave it out for 'log', got 1.0"),
        *(
            (
                {"normalization": normalization, "solver": solver},
                f"normalization '{normalization}' needs solver 'low-rank' or 'eigh' with backward "
                f"'exact', got '{solver}' with 'exact': use those, or normalization 'sqrt'",
            )
            for normalization in ("log", "power")
            for solver in ("minimax", "newton-schulz", "average")
        ),
        (
            {"normalization": "log", "solver": "eigh", "backward": "pade"},
            "needs solver 'low-rank' or 'eigh' with backward 'exact', got 'eigh' with 'pade'",
        ),
    ],
    ids=str,
)
def test_normalizations_that_are_not_allowed_are_named(settings, message) -> None:
    for build in (CovarianceRoot, lambda **kw: GlobalCovariancePool2d(4, 3, **kw)):
        with pytest.raises(UserError, match=message):
            build(**settings)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_batch_norm_in_float32_inside_of_a_half_network(half: torch.dtype) -> None:
    torch.manual_seed(0)
    pool, x = GlobalCovariancePool2d(6, 4).to(half), torch.randn(3, 6, 5, 5).to(half)
    expected = copy.deepcopy(pool).float()(x.float())
    pool.norm.float()
    y = pool(x)
    assert y.dtype == half
    assert (y.float() - expected).norm() < 4 * torch.finfo(half).eps * expected.norm()
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in pool.parameters())
