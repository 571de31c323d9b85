"""Folding against the network in evaluation, layer by layer and in networks of every shape."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import orthocond as oc
from orthocond.layers.inference.folding import Folded

DBN1, DBN2, DBN3 = (
    oc.DecorrelatedBatchNorm1d,
    oc.DecorrelatedBatchNorm2d,
    oc.DecorrelatedBatchNorm3d,
)


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) + 0.5


def trained(model: nn.Module, x: Tensor) -> nn.Module:
    """The model after some steps that set statistics and affine parameters."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, DBN1 | DBN2 | DBN3) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(30):
            model(x)
    return model


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def assert_folds(model: nn.Module, x: Tensor, tolerance: float = 1e-5) -> nn.Module:
    """Fold a model: its outputs are equal, and the model itself is as it was."""
    before = {name: (t, t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    flags = [module.training for module in model.modules()]
    shown = repr(model)
    folded = oc.fold(model)
    assert repr(model) == shown and [m.training for m in model.modules()] == flags
    for name, t in model.state_dict(keep_vars=True).items():
        assert t is before[name][0] and torch.equal(t, before[name][1])
    assert not any(module.training for module in folded.modules())
    shared = {id(t) for t in model.state_dict(keep_vars=True).values()}
    assert shared.isdisjoint(id(t) for t in folded.state_dict(keep_vars=True).values())
    with torch.no_grad():
        expected = model.eval()(x)
        assert distance(folded(x), expected) < tolerance
        assert distance(oc.fold(folded)(x), expected) < tolerance
    return folded


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(3, 6, 3), DBN2(6), (9, 3, 7, 7)),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), DBN2(6), (9, 3, 7, 7)),
        (nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), DBN2(6), (9, 3, 7, 7)),
        (nn.Conv2d(3, 6, 3, padding="same", padding_mode="circular"), DBN2(6), (9, 3, 7, 7)),
        (nn.Conv2d(3, 6, 3, dilation=2, padding=2), DBN2(6, groups=2), (9, 3, 7, 7)),
        (nn.Conv2d(4, 8, 3, groups=2), DBN2(8, groups=2), (9, 4, 7, 7)),
        (nn.Conv2d(4, 8, 3, groups=2), DBN2(8, groups=8, affine=False), (9, 4, 7, 7)),
        (nn.Conv2d(3, 6, 1), DBN2(6, solver="minimax"), (9, 3, 7, 7)),
        (nn.Conv2d(3, 6, 1), DBN2(6, running="root"), (9, 3, 7, 7)),
        (nn.Conv1d(3, 6, 3), DBN1(6), (30, 3, 9)),
        (nn.Linear(5, 6, bias=False), DBN1(6), (50, 5)),
        (nn.Conv3d(2, 4, 2), DBN3(4), (9, 2, 4, 4, 4)),
    ],
)
def test_whitening_is_merged_into_the_layer_before_it(
    layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    x = images(*shape)
    model = trained(nn.Sequential(layer, norm, nn.ReLU()), x)
    folded = assert_folds(model, x)
    assert type(folded[0]) is type(layer) and type(folded[1]) is Folded
    assert folded[0].weight.shape == layer.weight.shape and folded[0].bias is not None
    names = ("stride", "padding", "padding_mode", "dilation", "groups")
    assert all(getattr(folded[0], n, None) == getattr(layer, n, None) for n in names)


@pytest.mark.parametrize(
    ("before", "norm", "shape"),
    [
        (nn.ReLU(), DBN2(4, groups=2), (9, 4, 5, 5)),
        (nn.Conv2d(4, 4, 3, groups=4), DBN2(4), (9, 4, 7, 7)),  # depthwise: it would be mixed
        (nn.Conv2d(4, 4, 3, groups=2), DBN2(4), (9, 4, 7, 7)),
        (nn.ConvTranspose2d(4, 4, 3), DBN2(4), (9, 4, 5, 5)),
        (nn.ReLU(), DBN1(4), (30, 4)),
        (nn.ReLU(), DBN1(4, affine=False), (30, 4, 5)),
        (nn.ReLU(), DBN3(4), (9, 4, 3, 3, 3)),
    ],
)
def test_whitening_without_such_a_layer_is_a_1x1_convolution(
    before: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    x = images(*shape)
    folded = assert_folds(trained(nn.Sequential(before, norm), x), x)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[norm.spatial - 1]
    assert isinstance(folded[1], kind) and folded[1].groups == norm.groups
    assert isinstance(oc.fold(norm), kind)  # alone, as the root of a model


class Network(nn.Module):
    """Convolution, whitening and a forward of its own."""

    def __init__(self, run: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), DBN2(3)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.run(self, x) if mask is None else self.norm(self.conv(x)) * mask


UNMERGED: dict[str, Callable[..., Tensor]] = {
    "output used elsewhere": lambda m, x: m.norm(h := m.conv(x)) + h,
    "convolution used twice": lambda m, x: m.norm(m.conv(m.conv(x))),
    "whitening used twice": lambda m, x: m.norm(m.norm(m.conv(x))),
    "weight read": lambda m, x: m.norm(m.conv(x)) * m.conv.weight.norm(),
    "weight in the graph": lambda m, x: m.norm(m.conv(x)) + nn.functional.conv2d(x, m.conv.weight),
    "a branch on data": lambda m, x: m.norm(m.conv(x)) if x.sum() > -1e9 else x,
    "a branch on shapes": lambda m, x: m.norm(m.conv(x)) if x.shape[0] > 0 else x,
    "with a default left out": lambda m, x: m.conv(x) + m.norm(x),
}


@pytest.mark.parametrize("name", UNMERGED)
def test_what_can_not_be_merged_is_not(name: str) -> None:
    x = images(9, 3, 6, 6)
    run = UNMERGED[name]
    if name == "weight in the graph":
        model = Network(lambda m, x: m.norm(m.conv(x)).sum() + m.conv.weight.sum())
    else:
        model = Network(run)
    folded = assert_folds(trained(model, x), x)
    assert count(folded, Folded) == 0 and count(folded, nn.Conv2d) == 2


def test_a_forward_with_a_branch_on_an_argument_is_merged_if_both_branches_agree() -> None:
    x = images(9, 3, 6, 6)
    model = trained(Network(lambda m, x: m.norm(m.conv(x))), x)
    folded = assert_folds(model, x)
    assert count(folded, Folded) == 1
    mask = torch.rand(6, 6)
    assert distance(folded(x, mask), model(x, mask)) < 1e-5


def test_modules_under_two_names_and_tied_weights() -> None:
    x = images(9, 3, 6, 6)
    model = Network(lambda m, x: m.norm(m.conv(x)) + m.other(x) + m.tied(x))
    model.other, model.tied = DBN2(3), nn.Conv2d(3, 3, 3, padding=1)
    model.alias, model.tied.weight = model.norm, model.conv.weight
    folded = assert_folds(trained(model, x), x)
    assert folded.alias is folded.norm and type(folded.norm) is Folded
    assert type(folded.other) is nn.Conv2d


def test_a_layer_that_the_model_also_keeps_in_a_list_is_left_as_it_is() -> None:
    x = images(9, 3, 6, 6)
    model = Network(lambda m, x: m.listed[0](m.conv(x)))
    model.listed = [model.norm]  # a plain list: the module in it can't be replaced
    folded = assert_folds(trained(model, x), x)
    assert count(folded, Folded) == 0


def test_hooks_see_what_they_saw() -> None:
    x = images(9, 3, 6, 6)
    seen: list[Tensor] = []
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4), nn.Conv2d(4, 4, 3), DBN2(4)), x)
    model[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model[2].register_forward_hook(lambda _, __, y: seen.append(y))
    folded = assert_folds(model, x)
    assert type(folded[1]) is nn.Conv2d and type(folded[3]) is nn.Conv2d
    seen.clear()
    model(x), folded(x)
    assert len(seen) == 4 and len(model[1]._forward_pre_hooks) == 1
    torch.testing.assert_close(seen[:2], seen[2:], rtol=1e-5, atol=1e-5)


def test_skew_and_parametrized_layers_become_plain() -> None:
    x = images(9, 3, 8, 8)
    model = nn.Sequential(
        *(oc.SkewOrthogonalConv2d(3, 4, 3), DBN2(4)),
        *(parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)), DBN2(4)),
        *(parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3), DBN2(4), nn.Conv2d(4, 4, 3), DBN2(4)),
        oc.GlobalCovariancePool2d(4, 3, normalization="power", power=0.7),
    )
    for layer, treatment in (("6", "sn"), ("8", "ow-stiefel")):
        oc.treat(model, layer, treatment)
    folded = assert_folds(trained(model, x), x)
    assert count(folded, Folded) == 4 and not any("parametriz" in n for n in folded.state_dict())
    assert count(folded, nn.Conv2d) == 6  # with that of the pooling, which stays
    assert count(folded, oc.GlobalCovariancePool2d) == 1
    series = nn.Sequential(oc.SkewOrthogonalConv2d(3, 4, 3, mode="series"), DBN2(4))
    folded = assert_folds(trained(series, x), x)
    assert [type(m) for m in folded] == [oc.SkewOrthogonalConv2d, nn.Conv2d]


def test_a_shared_parametrized_parameter() -> None:
    x = images(9, 3, 6, 6)
    model = nn.Sequential(*(parametrizations.spectral_norm(nn.Conv2d(3, 3, 3)) for _ in range(2)))
    model[1].parametrizations.weight.original = model[0].parametrizations.weight.original
    assert_folds(model.eval(), x)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    ],
)
def test_wrappers_are_left_out(wrap: Callable[[nn.Module], nn.Module]) -> None:
    x = images(9, 3, 6, 6)
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4)), x)
    folded = oc.fold(wrap(model))
    assert type(folded) is nn.Sequential and type(folded[1]) is Folded
    assert distance(folded(x), model.eval()(x)) < 1e-5
    nested = nn.Sequential(wrap(model), nn.ReLU())
    assert type(oc.fold(nested)[0][1]) is Folded and nested[0] is not model


def test_float64_and_half_precision() -> None:
    x = images(16, 3, 6, 6, dtype=torch.float64)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4), nn.ReLU(), DBN2(4)).double()
    assert_folds(trained(model, x), x, 1e-12)
    for half in (torch.bfloat16, torch.float16):
        ours = copy.deepcopy(model).to(half)
        folded = oc.fold(ours)
        assert type(folded[1]) is Folded and type(folded[3]) is DBN2  # it would be too inexact
        assert folded[0].weight.dtype == half
        y = folded(x.to(half)).double()
        expected = copy.deepcopy(ours).double().eval()(x.to(half).double())
        unfolded = ours.eval()(x.to(half)).double()
        assert distance(y, expected) < 2 * distance(unfolded, expected)


def test_what_can_not_be_folded_is_named() -> None:
    with pytest.raises(oc.UserError, match=r"expected a torch.nn.Module to fold, got str"):
        oc.fold("model")
    with torch.device("meta"):
        model = nn.Sequential(DBN2(3))
    with pytest.raises(oc.UserError, match="load its weights before fold"):
        oc.fold(model)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4, eps=0.0))
    model[1].running_covariance.zero_()
    with pytest.raises(oc.DecompositionError, match=r"covariance of '1' .*singular and eps is 0"):
        oc.fold(model)
    model[0].forward = lambda x: x
    with pytest.raises(oc.UserError, match=r"forward of '0' was replaced .*unwrap_model"):
        oc.fold(model)


def test_a_linear_layer_on_sequences_is_noticed() -> None:
    model = nn.Sequential(nn.Linear(5, 6), DBN1(6))
    folded = oc.fold(trained(model, images(50, 5)))
    with pytest.raises(oc.UserError, match="outputs of 2 dimensions, got"):
        folded(images(2, 6, 5))


def test_whitening_by_the_batch_stays() -> None:
    x = images(9, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4, track_running_stats=False))
    assert type(assert_folds(model, x)[1]) is DBN2


def test_gradients_of_the_input_are_those_of_the_network() -> None:
    x = images(9, 3, 6, 6).requires_grad_()
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), DBN2(4), nn.ReLU(), DBN2(4)), x)
    folded = oc.fold(model)
    ours, expected = (
        torch.autograd.grad(m(x).square().sum(), x)[0] for m in (folded, model.eval())
    )
    assert distance(ours, expected) < 1e-5
    assert all(p.requires_grad for p in folded.parameters())
