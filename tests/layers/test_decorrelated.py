"""Decorrelated batch norms against plain float64 definitions, torch's batch norms, one process."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import (
    Checkpointed,
    in_processes,
    shaped_networks,
    train_step,
    whitened_network,
    whitening_step,
)
from reference import by_condition, derivative, spectrum, whiten
from torch import Tensor, nn

from orthocond.layers.decorrelated import (
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
)
from orthocond.layers.recalibration import recalibrate

NAN = float("nan")


class Form(NamedTuple):
    """A layer, the batch norm in its place, and images (B, C, H, W) as its input."""

    layer: type[nn.Module]
    norm: type[nn.Module]
    shaped: Callable[[Tensor], Tensor]


FORMS = {
    "2d": Form(DecorrelatedBatchNorm2d, nn.BatchNorm2d, lambda x: x),
    "vectors": Form(
        DecorrelatedBatchNorm1d, nn.BatchNorm1d, lambda x: x.movedim(1, 3).flatten(0, 2)
    ),
    "sequences": Form(DecorrelatedBatchNorm1d, nn.BatchNorm1d, lambda x: x.flatten(2)),
    "3d": Form(DecorrelatedBatchNorm3d, nn.BatchNorm3d, lambda x: x[:, :, :, None]),
}


@pytest.fixture(params=FORMS)
def form(request) -> Form:
    return FORMS[request.param]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative, in the Frobenius norm."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def features(covariance: torch.Tensor, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Float64 features (B, C, H, W) whose batch covariance is exactly this one, with mean 0."""
    generator = torch.Generator().manual_seed(seed)
    B, C, H, W = shape
    Z = torch.randn(C, B * H * W, dtype=torch.float64, generator=generator)
    Z = torch.linalg.qr((Z - Z.mean(1, keepdim=True)).mT).Q.mT * (B * H * W) ** 0.5
    l, U = torch.linalg.eigh(covariance)
    X = (U * l.clamp_min(0).sqrt()) @ U.mT @ Z
    return X.view(C, B, H, W).transpose(0, 1).contiguous()


def stem(images: int, size: int) -> torch.Tensor:
    """What a 3x3 convolution from 3 to 64 channels makes of smooth images: rank 27."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, size // 2, size // 2, generator=generator)
    x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.manual_seed(0)
    with torch.no_grad():
        return nn.Conv2d(3, 64, 3, padding=1, bias=False)(x)


def spread(images: int, size: int) -> torch.Tensor:
    l = torch.logspace(0, -3, 64, dtype=torch.float64)
    return features(spectrum(l), (images, 64, size, size)).float()


def channels_are_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("source", [stem, spread])
def test_float32_is_within_1e_5_of_float64(source, mean, layout, form):
    x = source(24, 16)  # 1.5 chunks
    x = (x + mean * x.std()).to(memory_format=layout)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    expected, gradient = whiten(x, 1e-2, g)
    x = form.shaped(x).requires_grad_()
    y = form.layer(64)(x)
    y.backward(form.shaped(g))
    assert y.is_contiguous() == x.is_contiguous()
    assert channels_are_last(y) == channels_are_last(x)
    assert distance(y, form.shaped(expected)) < 1e-5
    assert distance(x.grad, form.shaped(gradient)) < 1e-5


@given(
    st.tuples(st.integers(2, 5), st.integers(1, 9), st.integers(2, 4), st.integers(2, 4)),
    st.sampled_from([1.0, 1e2, 1e4]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.integers(0, 99),
    st.sampled_from(list(FORMS.values())),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_scale_and_dtype(shape, kappa, scale, dtype, channels_last, seed, form):
    B, C, H, W = shape
    x = features(by_condition(C, kappa, seed=seed), (B + C, C, H, W), seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = (scale * (x + 3)).to(dtype).to(memory_format=layout)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    eps = 1e-3 * scale**2
    x = form.shaped(images).requires_grad_()
    y = form.layer(C, eps=eps).to(dtype)(x)
    y.backward(form.shaped(g))
    # The reference takes the features in units of their scale: y is the same, dl/dx by 1 / scale.
    of_images = whiten(images.double() / scale, 1e-3, g)
    expected, gradient = (form.shaped(t) for t in of_images)
    # Rounding of P, relative to its largest eigenvalue, is amplified by that of (P + eps I)^-1.
    tolerance = 32 * C * torch.finfo(dtype).eps * min(kappa, 1e3)
    assert distance(y, expected) < tolerance
    # The gradient is the part of F G that lies neither along 1 nor along X: it may cancel.
    scale_of_gradient = gradient.norm() + g.norm() * min(kappa, 1e3) ** 0.5
    assert (x.grad.double() * scale - gradient).norm() < tolerance * scale_of_gradient


@pytest.mark.parametrize("values", [[1, 1, 1, 1], [1, 1 + 1e-9, 0.5, 0.5], [8, 4, 2, 1]])
def test_the_gradient_is_that_of_central_differences(values, form):
    x = features(spectrum(values), (4, 4, 3, 3)).requires_grad_()
    g, direction = torch.randn(2, *x.shape, dtype=x.dtype)
    layer = form.layer(4, eps=1e-2).double()
    layer(form.shaped(x)).backward(form.shaped(g))
    slope = derivative(lambda x: (whiten(x, 1e-2)[0] * g).sum(), x.detach(), direction, 1e-5)
    assert (x.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("solver", ["eigh", "newton-schulz"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradcheck(groups, solver, training, form):
    torch.manual_seed(0)
    layer = form.layer(4, groups=groups, solver=solver).double()
    x = form.shaped(torch.randn(2, 4, 2, 2, dtype=torch.float64))
    layer(x)
    layer.train(training)
    inputs = [
        t.requires_grad_() for t in (x, torch.rand(4).double() + 0.5, torch.randn(4).double())
    ]

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_group_per_channel_is_batch_norm(momentum, affine, track, form):
    torch.manual_seed(0)
    options = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": track}
    ours, theirs = form.layer(6, groups=6, **options), form.norm(6, **options)
    if affine:
        for parameter in (ours.weight, ours.bias):
            nn.init.uniform_(parameter, 0.5, 2)
        theirs.load_state_dict({"weight": ours.weight.data, "bias": ours.bias.data}, strict=False)
    for step in range(4):
        if step == 3:
            ours.eval(), theirs.eval()
        x = form.shaped(torch.randn(5, 6, 3, 2)) * (1 + step) + step
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        g = torch.randn(x.shape)
        ya, yb = ours(a), theirs(b)
        ya.backward(g), yb.backward(g)
        assert distance(ya, yb) < 1e-5 and distance(a.grad, b.grad) < 1e-5
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert distance(p.grad, q.grad) < 1e-5
    if track:
        assert distance(ours.running_mean, theirs.running_mean) < 1e-6
        assert distance(ours.running_covariance.flatten(), theirs.running_var) < 1e-6
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 3


@pytest.mark.parametrize("groups", [1, 2])
def test_the_output_is_white_within_a_group(groups, form):
    x = features(spectrum([8.0, 4, 2, 1, 0.5, 0.25]), (6, 6, 4, 4)).float()
    layer = form.layer(6, eps=0, groups=groups)
    covariance = layer(form.shaped(x)).transpose(0, 1).flatten(1).cov(correction=0)
    d = 6 // groups
    for j in range(groups):
        block = covariance[j * d : (j + 1) * d, j * d : (j + 1) * d]
        assert torch.allclose(block, torch.eye(d), atol=1e-5)
    assert (covariance[:3, 3:].abs().max() > 0.1) == (groups == 2)


def test_newton_schulz_is_near_on_a_well_conditioned_covariance(form):
    x = features(spectrum([3.0, 2.5, 2, 2]), (4, 4, 4, 4)).float()
    exact, near = (form.layer(4, solver=s)(form.shaped(x)) for s in ("eigh", "newton-schulz"))
    assert 0 < distance(near, exact) < 1e-2


@pytest.mark.parametrize("rule", ["pade", "taylor", "raw"])
def test_the_papers_backward_rules_are_the_exact_one_on_a_spread_spectrum(rule, form):
    x = form.shaped(features(spectrum([8.0, 4, 2, 1]), (4, 4, 3, 3))).requires_grad_()
    g = torch.randn_like(x)
    gradients = [
        torch.autograd.grad(form.layer(4, backward=r).double()(x), x, g)[0] for r in ("exact", rule)
    ]
    assert distance(*gradients) < 1e-10


def test_evaluation_takes_the_running_statistics(form):
    torch.manual_seed(0)
    layer = form.layer(3, momentum=1.0)
    x = form.shaped(2 + torch.randn(400, 3, 2, 2))
    trained = layer(x)
    evaluated = layer.eval()(x)
    assert distance(evaluated, trained) < 1e-3  # 1600 / 1599 apart
    assert distance(layer(x[:1]), evaluated[:1]) < 1e-6  # one image, the same statistics


@pytest.mark.parametrize("poison", [NAN, float("inf")])
def test_a_poisoned_batch_gives_nan_and_is_counted(poison, form):
    layer = form.layer(4, groups=2)
    x = torch.randn(4, 4, 3, 3)
    layer(form.shaped(x))
    before = copy.deepcopy(layer.state_dict())
    x[1, 0, 2, 2] = poison
    x = form.shaped(x)
    y = layer(x.requires_grad_())
    y.sum().backward()
    assert y[:, :2].isnan().all() and y[:, 2:].isfinite().all()
    assert x.grad[:, :2].isnan().all() and x.grad[:, 2:].isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert (layer.outcomes.failures, layer.outcomes.unrecovered) == (1, 1)


def test_in_evaluation_a_poisoned_sample_poisons_itself_only(form):
    layer = form.layer(4).eval()
    x = form.shaped(torch.randn(3, 4, 2, 2))
    x[1] = NAN
    y = layer(x.requires_grad_())
    y.square().sum().backward()
    for value in (y, x.grad):
        assert value[1].isnan().all() and value[0].isfinite().all() and value[2].isfinite().all()


@pytest.mark.parametrize("solver", ["eigh", "newton-schulz"])
def test_degenerate_batches_are_defined(solver, form):
    layer = form.layer(3, solver=solver)
    zero = form.shaped(torch.zeros(2, 3, 2, 2)).requires_grad_()
    constant = torch.randn(2, 3, 2, 2)
    constant[:, 1] = 7.0
    constant = form.shaped(constant).requires_grad_()
    repeated = form.shaped(torch.randn(2, 1, 2, 2).repeat(1, 3, 1, 1)).requires_grad_()
    for x in (zero, constant, repeated):
        y = layer(x)
        y.square().sum().backward()
        assert y.isfinite().all() and x.grad.isfinite().all()
    assert layer(zero).abs().max() == 0
    assert layer(constant)[:, 1].abs().max() < 1e-5
    assert layer.outcomes.failures == 0


def test_a_batch_without_samples_to_compare_is_refused_in_training_only(form):
    layer = form.layer(3)
    for shape in [(1, 3, 1, 1), (0, 3, 2, 2), (2, 3, 0, 2)]:
        x = form.shaped(torch.zeros(shape))
        with pytest.raises(
            ValueError, match=r"at least 2 (pixels|samples|voxels) .*got [01] from input of shape"
        ):
            layer(x)
        assert layer.eval()(x).shape == x.shape
        layer.train()


def test_singular_without_eps_is_a_counted_failure(form):
    layer = form.layer(2, eps=0)
    assert layer(form.shaped(torch.zeros(2, 2, 2, 2))).isnan().all()
    assert layer.outcomes.unrecovered == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_computes_in_float32_under_autocast_and_for_half_inputs(dtype, form):
    torch.manual_seed(0)
    x = form.shaped(torch.randn(4, 5, 4, 4))
    layer = form.layer(5)
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        assert torch.equal(layer(x), expected)
    half = x.to(dtype).requires_grad_()
    y = layer(half)
    y.sum().backward()
    assert y.dtype == half.grad.dtype == dtype
    assert torch.equal(y, layer(half.detach().float()).to(dtype))


@pytest.mark.parametrize("training", [True, False])
def test_strides_and_expanded_gradients_do_not_matter(training, form):
    torch.manual_seed(0)
    layer = form.layer(4, groups=2).train(training)
    x = torch.randn(3, 4, 5, 2)
    strided = x.transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    wide = torch.randn(3, 8, 5, 2)
    wide[:, ::2] = x
    plain = x.clone().requires_grad_()
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    for other in (strided, last, wide[:, ::2].requires_grad_()):
        (plain_gradient,) = torch.autograd.grad(layer(form.shaped(plain)).sum() * 2, plain)
        (gradient,) = torch.autograd.grad(layer(form.shaped(other)).sum() * 2, other)
        assert torch.allclose(layer(form.shaped(other)), layer(form.shaped(plain)), atol=1e-6)
        assert torch.allclose(gradient, plain_gradient, atol=1e-5)


def test_frozen_inputs_and_repeated_backward(form):
    torch.manual_seed(0)
    layer = form.layer(4)
    x = form.shaped(torch.randn(3, 4, 2, 2))
    layer(x).square().sum().backward()
    frozen = layer.weight.grad.clone()
    layer.zero_grad()
    y = layer(x.requires_grad_()).square().sum()
    y.backward(retain_graph=True)
    assert torch.equal(layer.weight.grad, frozen)
    once = x.grad.clone()
    y.backward()
    assert torch.allclose(x.grad, 2 * once)


def test_a_gradient_in_evaluation_does_not_notice_a_later_step(form):
    """In float64 too, where nothing need be converted and so copied."""
    torch.manual_seed(0)
    layer = form.layer(3, momentum=0.5).double()
    x, later = map(form.shaped, torch.randn(2, 4, 3, 2, 2, dtype=torch.float64))
    layer(x)
    gradients = []
    for steps in (0, 1):
        y = layer.eval()(x.requires_grad_())
        for _ in range(steps):
            layer.train()(later + 3)
        y.square().sum().backward()
        gradients += [[t.grad.clone() for t in (x, layer.weight)]]
        x.grad = layer.weight.grad = None
    for ours, expected in zip(*gradients, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("track", [True, False])
def test_inference_mode_and_in_place_changes(track, form):
    torch.manual_seed(0)
    layer = form.layer(3, track_running_stats=track)
    x = form.shaped(torch.randn(4, 3, 3, 3))
    with torch.inference_mode():
        inferred = layer(x)
        assert layer.eval()(x).isfinite().all()
    h = 2 * x.clone().requires_grad_()
    y = layer.train()(h / 2)
    assert torch.allclose(y, inferred, atol=1e-6)
    y = layer(h)
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_state_dict_repr_and_copies(form):
    torch.manual_seed(0)
    layer = form.layer(4, groups=2)
    layer(form.shaped(torch.randn(5, 4, 3, 3)))
    other = form.layer(4, groups=2)
    other.load_state_dict(layer.state_dict())
    x = form.shaped(torch.randn(2, 4, 3, 3))
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert sorted(layer.state_dict()) == [
        "bias",
        "num_batches_tracked",
        "running_covariance",
        "running_mean",
        "weight",
    ]
    assert repr(layer) == (
        f"{form.layer.__name__}(4, eps=0.01, momentum=0.1, affine=True, track_running_stats=True, "
        "groups=2, solver='eigh', backward='exact')"
    )
    layer.reset_parameters()
    fresh = form.layer(4, groups=2).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "4 features can't be split into 3 equal groups"),
        ({"groups": 2.0}, "groups is 2.0: allowed are whole numbers from 1"),
        ({"eps": "1e-3"}, "eps must be 0 or more and finite, got '1e-3'"),
        ({"eps": None}, "eps must be 0 or more and finite, got None"),
        ({"eps": -1.0}, "eps must be 0 or more and finite, got -1.0"),
        ({"eps": float("inf")}, "eps must be 0 or more and finite, got inf"),
        ({"solver": "eig"}, r"unknown solver 'eig'.*did you mean 'eigh'\?"),
        ({"running": "roots"}, r"unknown running 'roots'.*did you mean 'root'\?"),
        ({"backward": "padé"}, r"unknown backward 'padé'.*did you mean 'pade'\?"),
        ({"solver": "newton-schulz", "backward": "pade"}, "has its own backward"),
    ],
)
def test_bad_arguments_are_named(arguments, message, form):
    with pytest.raises(ValueError, match=message):
        form.layer(4, **arguments)


@pytest.mark.parametrize("number", [0, -1, 4.0, "4", None])
def test_a_number_of_features_is_a_positive_whole_number(number, form):
    with pytest.raises(ValueError, match=rf"num_features is {number!r}: allowed are whole n"):
        form.layer(number)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (DecorrelatedBatchNorm2d, (2, 3, 2, 2), r"(B, 4, H, W), got (2, 3, 2, 2)"),
        (DecorrelatedBatchNorm2d, (4,), r"(B, 4, H, W), got (4,)"),
        (
            DecorrelatedBatchNorm2d,
            (2, 4),
            r"(B, 4, H, W), got (2, 4): DecorrelatedBatchNorm1d takes (B, C) or (B, C, L)",
        ),
        (
            DecorrelatedBatchNorm2d,
            (4, 2, 2),
            r"(B, 4, H, W), got (4, 2, 2): DecorrelatedBatchNorm1d takes (B, C) or (B, C, L)",
        ),
        (DecorrelatedBatchNorm1d, (2, 3), r"(B, 4) or (B, 4, L), got (2, 3)"),
        (
            DecorrelatedBatchNorm1d,
            (2, 4, 1, 1),
            r"(B, 4) or (B, 4, L), got (2, 4, 1, 1): DecorrelatedBatchNorm2d takes (B, C, H, W)",
        ),
        (
            DecorrelatedBatchNorm3d,
            (2, 4, 1, 1),
            r"(B, 4, D, H, W), got (2, 4, 1, 1): DecorrelatedBatchNorm2d takes (B, C, H, W)",
        ),
        (DecorrelatedBatchNorm3d, (2, 3, 2, 2, 2), r"(B, 4, D, H, W), got (2, 3, 2, 2, 2)"),
    ],
)
def test_bad_shapes_are_named(layer, shape, message):
    with pytest.raises(ValueError) as error:
        layer(4)(torch.zeros(shape))
    assert str(error.value) == f"expected an input of shape {message}"


def test_large_batches_of_vectors_are_as_precise_as_images():
    """Their products are one matrix product each, and not a sum over images in float64."""
    x = features(by_condition(8, 1e3), (100, 8, 50, 60)).float() + 30
    by_images, by_vectors = DecorrelatedBatchNorm2d(8), DecorrelatedBatchNorm1d(8)
    expected = FORMS["vectors"].shaped(by_images(x))
    assert distance(by_vectors(FORMS["vectors"].shaped(x)), expected) < 1e-5
    assert distance(by_vectors.running_covariance, by_images.running_covariance) < 1e-6


def test_two_processes_equal_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(128, 3, 8, 8, generator=generator) + 1
    images[64:] *= 3  # the shares differ, so that their own statistics would not do
    labels = torch.randint(4, (128,), generator=generator)
    model = whitened_network()
    expected = {n: v.clone() for n, v in train_step(model, images, labels).items()}
    recalibrate(model, [images])
    one, two = in_processes(tmp_path, whitening_step, images, labels)
    (first, calibrated, checkpointed, *_), (second, _, checkpointed_too, _) = one, two
    first["loss"] = (first["loss"] + second["loss"]) / 2
    for name, value in expected.items():
        assert distance(first[name], value) < 1e-5, name
        assert name == "loss" or torch.equal(first[name], second[name]), name
    for name, value in model.state_dict().items():
        assert distance(calibrated[name], value) < 1e-5, name
    expected = train_step(Checkpointed(False), images, labels)
    for step in (*checkpointed, *checkpointed_too):
        for name, value in expected.items():
            if name.startswith("gradient"):
                assert distance(step[name], value) < 1e-5, name
            elif name.endswith("num_batches_tracked"):
                assert step[name] == 2 and value == 1
    for form, (network, data) in shaped_networks(images).items():
        expected = train_step(network, data, labels)
        for process in (one[3], two[3]):
            for name in expected.keys() - {"loss"}:
                assert distance(process[form][name], expected[name]) < 1e-5, (form, name)
