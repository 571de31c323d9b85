"""Covariance pooling against the plain definition, with injected faults, in every precision."""

import copy
import re
from collections.abc import Callable

import pytest
import reference
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
