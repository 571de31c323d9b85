"""Layers with each solver and its settings, against eigh, and torch.compile against eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from forms import WHITENING, OfVectors, OfVolumes
from reference import covariance, covariance_sqrt, whiten
from torch import Tensor, nn

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers import skew
from orthocond.layers.covariance_pool import CovarianceRoot
from orthocond.spectral.newton_schulz import newton_schulz

DBN = oc.DecorrelatedBatchNorm2d
GCP = oc.GlobalCovariancePool2d
FORMS = pytest.mark.parametrize("form", WHITENING)


def features(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    mix = torch.randn(shape[1], shape[1], dtype=torch.float64, generator=generator)
    return scale * torch.einsum("ij,bjhw->bihw", mix, x) + 1


def passed(layer: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    return y.detach(), torch.autograd.grad(y, x, g)[0]


@FORMS
@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_whitening_by_minimax_is_the_plain_definition(eps: float, scale: float, form: str) -> None:
    x, g = features(4, 6, 5, 5, scale=scale), features(4, 6, 5, 5, seed=1)
    layer = WHITENING[form](6, eps=eps, solver="minimax").double()
    ours = passed(layer, x, g)
    for a, b in zip(ours, whiten(x, eps, g), strict=True):
        assert b is not None and torch.dist(a, b) <= 1e-9 * b.norm()
    assert layer.outcomes.failures == 0
    other = WHITENING[form](6, eps=eps).double()
    other(x)
    for a, b in zip(layer.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), other.eval()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_pooling_by_minimax_is_the_plain_definition(eps: float) -> None:
    x, g = features(3, 5, 4, 4), torch.randn(3, 5, 5, dtype=torch.float64)
    layer = CovarianceRoot("minimax", eps=eps)
    Q, gradient = passed(layer, x, g)
    for i in range(3):
        expected, slope = covariance_sqrt(x[i].flatten(1), eps, g[i])
        assert torch.dist(Q[i], expected) <= 1e-10 * expected.norm()
        assert torch.dist(gradient[i].flatten(1), slope) <= 1e-9 * slope.norm()
    assert layer.outcomes.failures == 0


@pytest.mark.parametrize("solver", ["low-rank", "eigh", "minimax", "newton-schulz"])
def test_pooling_adds_eps_with_every_solver(solver) -> None:
    """At P + eps I close to eps I, Newton-Schulz has converged too."""
    x = features(2, 4, 4, 4, scale=1e-2)
    Q = CovarianceRoot(solver, eps=10.0)(x)
    P = torch.stack([covariance(sample.flatten(1)) for sample in x])
    torch.testing.assert_close(Q @ Q, P + 10 * torch.eye(4).double(), rtol=1e-4, atol=1e-4)
    assert GCP(4, 4, solver=solver, eps=10.0).root.eps == 10.0


@FORMS
def test_a_condition_number_that_is_too_small_is_counted(form: str) -> None:
    x = features(4, 6, 5, 5)
    layer = WHITENING[form](6, eps=1e-6, solver="minimax", condition=2.0).double()
    y = layer(x)
    assert y.isfinite().all()
    assert (layer.outcomes.failures, layer.outcomes.unrecovered) == (1, 0)
    assert int(layer.num_batches_tracked) == 1


def test_data_that_make_a_covariance_singular_are_counted() -> None:
    x = features(3, 4, 5, 5)
    x[1, 2] = 7.0  # a constant channel
    root = CovarianceRoot("minimax")
    Q, gradient = passed(root, x, torch.ones(3, 4, 4).double())
    assert (root.outcomes.failures, root.outcomes.unrecovered) == (1, 0)
    assert gradient.isfinite().all()
    torch.testing.assert_close(Q, CovarianceRoot("low-rank")(x), rtol=1e-6, atol=1e-6)
    for layer in WHITENING.values():
        norm = layer(4, eps=0.0, solver="minimax").double()
        assert norm(x[1:2]).isfinite().all() and norm.outcomes.failures == 1


def test_a_covariance_that_is_singular_by_its_shape_is_refused() -> None:
    for shape in [(2, 6, 2, 3), (2, 6, 1, 2)]:
        with pytest.raises(
            UserError,
            match=rf"needs more positions than channels or eps > 0: .* 6 channels over "
            rf"{shape[2] * shape[3]} positions is singular; use eps, larger images, fewer channels",
        ):
            CovarianceRoot("minimax")(torch.randn(shape))
        CovarianceRoot("minimax", eps=1e-3)(torch.randn(shape))
    with pytest.raises(
        UserError,
        match=r"expected at least 7 pixels .*, got 6 from input of shape \(1, 6, 2, 3\): the "
        r"covariance of 6 channels is singular with fewer; use a larger batch, more groups or eps",
    ):
        DBN(6, eps=0.0, solver="minimax")(torch.randn(1, 6, 2, 3))
    for layer, shape, what in [
        (oc.DecorrelatedBatchNorm1d, (6, 6), "samples"),
        (oc.DecorrelatedBatchNorm1d, (2, 6, 3), "samples"),
        (oc.DecorrelatedBatchNorm3d, (1, 6, 1, 2, 3), "voxels"),
    ]:
        with pytest.raises(UserError, match=rf"expected at least 7 {what} .*, got 6 from input of"):
            layer(6, eps=0.0, solver="minimax")(torch.randn(shape))
        layer(6, eps=0.0, solver="minimax", groups=2)(torch.randn(shape))
    DBN(6, eps=0.0, solver="minimax", groups=2)(torch.randn(1, 6, 2, 3))
    DBN(6, solver="minimax")(torch.randn(1, 6, 2, 3))
    with pytest.raises(UserError, match="at least 2 pixels over the batch in training, got 1 from"):
        DBN(6, solver="minimax")(torch.randn(1, 6, 1, 1))


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_newton_schulz_takes_the_steps_that_are_asked_for(steps: int) -> None:
    x = features(2, 4, 4, 4)
    P = torch.stack([covariance(sample.flatten(1)) for sample in x])
    sqrt, inverse = newton_schulz(P, steps)
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(oc.matrix_sqrt(P, "newton-schulz", steps=steps), sqrt)
    close(oc.matrix_inv_sqrt(P, "newton-schulz", steps=steps), inverse)
    close(CovarianceRoot("newton-schulz", steps=steps)(x), sqrt)
    X = x[:1] - x[:1].mean((2, 3), keepdim=True)
    for of in WHITENING.values():
        layer = of(4, eps=0.0, solver="newton-schulz", steps=steps).double()
        close(layer(x[:1]), torch.einsum("ij,bjhw->bihw", inverse[0], X))


@pytest.mark.parametrize(
    "build",
    [
        *(partial(layer, 4) for layer in WHITENING.values()),
        partial(GCP, 4, 4),
        CovarianceRoot,
    ],
)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "newton-schulz", "steps": 0}, "steps is 0: allowed are whole numbers from 1"),
        ({"solver": "newton-schulz", "steps": 2.5}, "steps is 2.5: allowed are whole numbers"),
        ({"solver": "eigh", "steps": 4}, "steps are for .*: leave them out for 'eigh'"),
        ({"solver": "minimax", "steps": 4}, "steps are for .*: leave them out for 'minimax'"),
        ({"solver": "eigh", "condition": 1e4}, "condition is for .*: leave it out for 'eigh'"),
        ({"solver": "minimax", "condition": 0.1}, r"condition is 0.1: allowed .* 1 to 1e\+12"),
        ({"solver": "minimax", "eps": -1.0}, "eps must be 0 or more"),
        ({"solver": "minimax", "backward": "raw"}, "'exact'"),
    ],
)
def test_settings_that_are_not_allowed_are_named(build, settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_settings_of_pooling_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(UserError, match=r"'average' has no covariance to add eps to"):
        CovarianceRoot("average", eps=0.1)
    for solver in ("low-rank", "average"):
        with pytest.raises(UserError, match=f"leave them out for '{solver}'"):
            CovarianceRoot(solver, steps=4)
        with pytest.raises(UserError, match=f"leave it out for '{solver}'"):
            CovarianceRoot(solver, condition=10.0)


def test_the_settings_are_in_the_repr() -> None:
    assert "solver='minimax', backward='exact', condition=1e+06" in repr(DBN(4, solver="minimax"))
    pool = GCP(4, 4, solver="newton-schulz", eps=0.5, steps=7)
    assert "solver='newton-schulz', backward='exact', eps=0.5, steps=7" in repr(pool)


# Few steps of an iteration, which are as many copies of the same operators in a graph.
ITERATIONS = {"newton-schulz": {"steps": 2}, "minimax": {"condition": 20.0}}
COMPILED: dict[str, Callable[[], nn.Module]] = {
    "whitening, eigh": partial(DBN, 6),
    "whitening, eigh, in groups": partial(DBN, 6, groups=2),
    **{f"whitening, {s}": partial(DBN, 6, solver=s, **few) for s, few in ITERATIONS.items()},
    "whitening, eigh, pade, cumulative": partial(DBN, 6, momentum=None, backward="pade"),
    "whitening, eigh, untracked": partial(DBN, 6, affine=False, track_running_stats=False),
    "pooling, low-rank": partial(GCP, 6, 4, "low-rank", eps=1e-3),
    "pooling, eigh": partial(GCP, 6, 4, "eigh"),
    **{f"pooling, {s}": partial(GCP, 6, 4, s, eps=0.1, **few) for s, few in ITERATIONS.items()},
    "pooling, average": partial(GCP, 6, 4, "average"),
    "pooling, power, below full rank": partial(GCP, 6, 30, normalization="power", power=0.7),
    "skew": partial(oc.SkewOrthogonalConv2d, 6, 8, 3),
    "skew, series": partial(oc.SkewOrthogonalConv2d, 6, 8, 3, mode="series"),
    "skew, 1x1": partial(oc.SkewOrthogonalConv2d, 6, 8, 1),
}


def compiled_pair(
    name: str, has_counters: bool = True, backend: str = "aot_eager"
) -> tuple[nn.Module, nn.Module, Callable]:
    """An eager network, its copy, and the compiled function of the copy.

    The first forward makes the counters of outcomes. If it is a compiled one, the second forward
    is compiled anew.
    """
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(2, 6, 3), COMPILED[name]()).double()
    if has_counters:
        eager(torch.randn(4, 2, 7, 7, dtype=torch.float64))
    ours = copy.deepcopy(eager)
    return eager, ours, torch.compile(ours, fullgraph=True, backend=backend)


def assert_steps_equal(eager: nn.Module, ours: nn.Module, compiled: Callable) -> None:
    """In two training steps and in evaluation: values, gradients, running statistics, outcomes."""
    for training in (True, True, False):
        eager.train(training), ours.train(training)
        x = torch.randn(4, 2, 7, 7, dtype=torch.float64)
        y = eager(x)
        g = torch.randn_like(y)
        z = compiled(x)
        torch.testing.assert_close(z, y, rtol=1e-11, atol=1e-11)
        y.backward(g), z.backward(g)
        for a, b in zip(ours.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)
        for a, b in zip(ours.buffers(), eager.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    if (outcomes := getattr(eager[1], "outcomes", None)) is not None:
        assert repr(ours[1].outcomes) == repr(outcomes)


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_network_is_the_eager_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "POWER_STEPS", 2)
    assert_steps_equal(*compiled_pair(name))


def test_compiled_layers_of_other_dimensions_are_the_eager_ones() -> None:
    torch._dynamo.reset()
    eager = nn.Sequential(OfVectors(6), OfVolumes(6)).double()
    ours = copy.deepcopy(eager)
    x, g = features(4, 6, 3, 3), features(4, 6, 3, 3, seed=1)
    found = passed(torch.compile(ours, fullgraph=True, backend="aot_eager"), x, g)
    torch.testing.assert_close(found, passed(eager, x, g), rtol=1e-9, atol=1e-10)
    for a, b in zip(ours.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_network_compiled_to_kernels_is_the_eager_one() -> None:
    assert_steps_equal(*compiled_pair("whitening, eigh", backend="inductor"))


@pytest.mark.parametrize("name", ["whitening, eigh", "pooling, low-rank", "pooling, eigh"])
def test_a_compiled_network_counts_failures(name: str) -> None:
    eager, ours, compiled = compiled_pair(name, has_counters=False)
    x = torch.full((4, 2, 7, 7), torch.nan).double()
    torch.testing.assert_close(compiled(x), eager(x), equal_nan=True)
    assert ours[1].outcomes.unrecovered > 0
    assert repr(ours[1].outcomes) == repr(eager[1].outcomes)
