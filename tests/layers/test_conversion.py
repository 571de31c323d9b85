"""Batch norms that become whitening layers: equal in evaluation, and then trained."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models.resnet import BasicBlock, ResNet

import orthocond as oc
from orthocond.errors import UserError

CASES = [
    (nn.BatchNorm1d, oc.DecorrelatedBatchNorm1d, (7, 4)),
    (nn.BatchNorm1d, oc.DecorrelatedBatchNorm1d, (7, 4, 5)),
    (nn.BatchNorm2d, oc.DecorrelatedBatchNorm2d, (5, 4, 3, 2)),
    (nn.BatchNorm3d, oc.DecorrelatedBatchNorm3d, (5, 4, 2, 3, 2)),
]
every_case = pytest.mark.parametrize(("kind", "layer", "shape"), CASES)


def trained(bn: nn.Module, *shape: int) -> nn.Module:
    """The batch norm after a few batches, with gamma and beta of its own."""
    torch.manual_seed(0)
    scale = torch.logspace(-1, 1, shape[1]).view(-1, *[1] * (len(shape) - 2))
    for p in bn.parameters():
        nn.init.normal_(p)
    for _ in range(3):
        bn(3 + scale * torch.randn(shape))
    return bn.eval()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("running", ["covariance", "root"])
@pytest.mark.parametrize("groups", [1, 2])
@every_case
@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False, "eps": 0.3}, {"bias": False}]
)
def test_evaluation_is_equal_until_the_first_step(kind, layer, shape, groups, running, options):
    bn = trained(kind(4, **options), *shape)
    x = 5 * torch.randn(shape)
    ours = layer.from_batch_norm(bn, groups=groups, running=running)
    assert close(ours(x), bn(x)) and not ours.training
    assert (ours.eps, ours.momentum, ours.affine) == (bn.eps, bn.momentum, bn.affine)
    assert ours.num_batches_tracked == bn.num_batches_tracked == 3
    expected = copy.deepcopy(bn.state_dict())
    ours.train()(x)
    assert not close(ours.eval()(x), bn(x))
    assert all(torch.equal(value, expected[name]) for name, value in bn.state_dict().items())


@every_case
@pytest.mark.parametrize("solver", ["minimax", "newton-schulz"])
def test_other_solvers(solver, kind, layer, shape):
    bn = trained(kind(4), *shape)
    x = torch.randn(shape)
    norm = layer.from_batch_norm(bn, solver=solver, running="root")
    assert close(norm(x), bn(x)) and norm.train()(x).isfinite().all()
    if solver == "minimax":
        norm = layer.from_batch_norm(bn, solver=solver)
        assert close(norm(x), bn(x)) and norm.outcomes.failures == 0
    else:
        with pytest.raises(UserError, match=r"inexact on a running covariance.*running='root'"):
            layer.from_batch_norm(bn, solver=solver)


@every_case
def test_the_first_training_steps_are_those_of_a_new_layer(kind, layer, shape):
    """Whitening in training depends on gamma, beta and eps only."""
    bn = trained(kind(4), *shape)
    x = torch.randn(shape)
    ours = layer.from_batch_norm(bn).train()
    new = layer(4, eps=1e-5)
    new.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), new(x))
    covariance = torch.diag(bn.running_var).lerp(x.transpose(0, 1).flatten(1).cov(), 0.1)
    assert torch.allclose(ours.running_covariance[0], covariance, atol=1e-6)


@every_case
def test_the_parameters_are_shared_and_flags_are_kept(kind, layer, shape):
    bn = kind(4, dtype=torch.float64).train()
    bn.weight.requires_grad_(False)
    norm = layer.from_batch_norm(bn)
    assert norm.weight is bn.weight and norm.bias is bn.bias and norm.training
    assert norm.running_covariance.dtype == torch.float64
    half = layer.from_batch_norm(kind(4).bfloat16())
    assert half.weight.dtype == torch.bfloat16 and half.running_mean.dtype == torch.float32
    meta = layer.from_batch_norm(kind(4, device="meta"))
    assert all(t.is_meta for t in (*meta.parameters(), *meta.buffers()))
    without_beta = layer.from_batch_norm(kind(4, bias=False))
    assert not without_beta.bias.requires_grad and without_beta.bias.eq(0).all()


class Own(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def hooked() -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(4)
    bn.register_forward_hook(lambda *_: None)
    return bn


def saved_by_a_hook() -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(4)
    bn.register_state_dict_post_hook(lambda *_: None)
    return bn


def replaced_on_the_object() -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(4)
    bn.forward = torch.zeros_like
    return bn


@pytest.mark.parametrize(
    ("bn", "message"),
    [
        (nn.BatchNorm1d(4), "the BatchNorm1d is not a batch norm .*allowed are BatchNorm2d, Sync"),
        (nn.InstanceNorm2d(4), "the InstanceNorm2d is not a batch norm"),
        (oc.DecorrelatedBatchNorm2d(4), "the DecorrelatedBatchNorm2d is not a batch norm"),
        (
            nn.BatchNorm2d(4, track_running_stats=False),
            r"build DecorrelatedBatchNorm2d\(\.\.\., tr",
        ),
        (nn.LazyBatchNorm2d(), "is not initialized: run the model on one batch before"),
        (parametrizations.weight_norm(nn.BatchNorm2d(4), dim=None), "parametrizations"),
        (hooked(), "hooks, which the new layer would lose"),
        (saved_by_a_hook(), "hooks, which the new layer would lose"),
        (replaced_on_the_object(), "forward of this BatchNorm2d was replaced on the object, as ac"),
        (nn.SyncBatchNorm(4, process_group="a group"), "has a process group"),
        (Own(4), "the forward of Own is its own"),
        (BatchNormAct2d(4), "oc.convert_batch_norm, which keeps drop and activation"),
    ],
)
def test_what_whitening_can_not_replace_is_refused(bn, message):
    with pytest.raises(UserError, match=message) as error:
        oc.DecorrelatedBatchNorm2d.from_batch_norm(bn)
    assert "\n" not in str(error.value)


def test_a_lazy_batch_norm_is_taken_after_its_first_batch():
    bn = nn.LazyBatchNorm2d()
    x = torch.randn(4, 3, 2, 2)
    bn(x)
    norm = oc.DecorrelatedBatchNorm2d.from_batch_norm(bn.eval())
    assert close(norm(x), bn(x))


def test_settings_of_the_batch_norm_can_not_be_given():
    for name in ("eps", "momentum", "group"):
        with pytest.raises(UserError, match=f"unknown setting '{name}': allowed are groups, "):
            oc.DecorrelatedBatchNorm2d.from_batch_norm(nn.BatchNorm2d(4), **{name: 1})


class Twice(nn.Module):
    """A block that runs twice under two names, and a norm that another part shares."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.second = self.first
        self.last = nn.ModuleDict({"norm": self.first[1], "other": nn.BatchNorm2d(4)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        return self.last["other"](self.last["norm"](x))


@pytest.mark.parametrize(
    "layers",
    [["first.1"], ["last.norm"], ["first.1", "last.norm"], lambda name, bn: name == "second.1"],
)
def test_shared_batch_norms_are_converted_once_and_stay_shared(layers):
    model = trained(Twice(), 5, 4, 3, 3)
    x = torch.randn(5, 4, 3, 3)
    before = model(x)
    parameters = {id(p) for p in model.parameters()}
    names = oc.convert_batch_norm(model, layers)
    assert names == ["first.1", "second.1", "last.norm"]
    assert model.first[1] is model.second[1] is model.last["norm"]
    assert isinstance(model.first[1], oc.DecorrelatedBatchNorm2d)
    assert isinstance(model.last["other"], nn.BatchNorm2d)
    assert close(model(x), before)
    assert {id(p) for p in model.parameters()} == parameters
    oc.recalibrate(model, [x], names)
    for name in names:
        oc.ConditioningProbe(model, name).close()


def test_an_optimizer_that_was_built_before_trains_the_new_layers():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    oc.convert_batch_norm(model, ["1"], groups=2, running="root")
    before = model[1].weight.clone()
    model(torch.randn(4, 3, 3, 3)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)
    assert model[1].groups == 2 and model[1].running == "root" and model[1].training


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["norms"], r"unknown layer 'norms'.*did you mean 'norm'\?"),
        (["conv"], "layer 'conv', a Conv2d, is not a batch norm"),
        (["untracked"], "layer 'untracked', a BatchNorm2d, has no running statistics"),
        (["norm", "own"], "the forward of Own"),
        ([], "no batch norm is chosen"),
        (lambda name, bn: False, "no batch norm is chosen"),
        ("norm", r"the string 'norm': pass a list, as in \['norm'\]"),
    ],
)
def test_a_wrong_choice_is_named_and_nothing_is_converted(layers, message):
    parts = {
        "conv": nn.Conv2d(3, 4, 1),
        "norm": nn.BatchNorm2d(4),
        "own": Own(4),
        "untracked": nn.BatchNorm2d(4, track_running_stats=False),
    }
    model = nn.ModuleDict(parts)
    with pytest.raises(UserError, match=message) as error:
        oc.convert_batch_norm(model, layers)
    assert "\n" not in str(error.value)
    assert dict(model.items()) == parts


def test_models_that_can_not_be_changed_in_place():
    for layers in ([""], lambda name, bn: True):
        with pytest.raises(UserError, match="the model itself is a batch norm"):
            oc.convert_batch_norm(nn.BatchNorm2d(4), layers)
    with pytest.raises(UserError, match=r"inside DataParallel.*before it is wrapped"):
        oc.convert_batch_norm(nn.DataParallel(nn.Sequential(nn.BatchNorm2d(4))), ["module.0"])


@pytest.mark.parametrize(("kind", "layer", "shape"), CASES)
def test_every_dimension_and_synchronised_batch_norms(kind, layer, shape):
    model = nn.Sequential(trained(kind(4), *shape))
    x = torch.randn(shape)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).eval()
    expected = model(x)
    ours = layer.from_batch_norm(synchronised[0])
    assert close(ours(x), expected)
    assert oc.convert_batch_norm(model, lambda name, bn: True) == ["0"]
    assert type(model[0]) is layer and close(model(x), expected)
    if layer is oc.DecorrelatedBatchNorm2d:
        oc.convert_batch_norm(synchronised, ["0"])
        assert type(synchronised[0]) is layer and close(synchronised(x), expected)


def test_timms_batch_norm_keeps_its_drop_and_activation():
    bn = BatchNormAct2d(4, act_layer=nn.PReLU, drop_layer=partial(nn.Dropout, 0.5))
    model = nn.Sequential(trained(bn, 5, 4, 3, 3)).eval()
    synchronised = nn.Sequential(SyncBatchNormAct(4))
    synchronised[0].load_state_dict(model[0].state_dict(), strict=False)
    synchronised[0].act, synchronised[0].drop = bn.act, bn.drop  # in timm's order
    x = torch.randn(5, 4, 3, 3)
    expected = model(x)
    assert expected.min() != 0
    for network in (model, synchronised.eval()):
        assert oc.convert_batch_norm(network, ["0"]) == ["0.norm"]
        assert close(network(x), expected)
        assert network[0].drop is bn.drop and network[0].act is bn.act
        assert list(dict(network[0].named_children())) == ["norm", "drop", "act"]
        with oc.ConditioningProbe(network, "0.norm") as probe:
            network(x)
        assert probe.records[0].median.dimension == 4


def test_a_timm_network_with_activations_in_its_norms():
    model = timm.create_model("efficientnet_b0", num_classes=3).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        names = oc.convert_batch_norm(model, lambda name, bn: bn.num_features <= 32)
        assert "bn1.norm" in names and len(names) > 4
        assert close(model(x), before, 1e-4)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_norm_layer_where_a_package_calls_it_as_a_plain_norm(package):
    torch.manual_seed(0)
    if package == "timm":
        from timm.models.resnet import BasicBlock as Block
        from timm.models.resnet import ResNet as Network

        options = {"channels": (8, 8, 8, 8), "stem_width": 8}
        model = Network(Block, (1, 1, 1, 1), 3, norm_layer=oc.DecorrelatedBatchNorm2d, **options)
    else:
        small = partial(oc.DecorrelatedBatchNorm2d, groups=16)
        model = ResNet(BasicBlock, [1, 1, 1, 1], 3, norm_layer=small, zero_init_residual=True)
    norms = [m for m in model.modules() if isinstance(m, oc.DecorrelatedBatchNorm2d)]
    assert len(norms) > 8 and not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    loss = model(torch.randn(4, 3, 32, 32)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(torch.randn(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("kind", "layer", "shape"), CASES[1:])
def test_loading_the_tensors_of_a_batch_norm_names_the_conversion(kind, layer, shape, strict):
    theirs = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4))
    for running in ("covariance", "root"):
        ours = nn.Sequential(nn.Conv2d(3, 4, 1), layer(4, running=running))
        with pytest.raises(RuntimeError) as error:
            ours.load_state_dict(theirs.state_dict(), strict=strict)
        message = str(error.value)
        assert f"layer '1' is a {layer.__name__}" in message
        assert (
            f"oc.convert_batch_norm(model, layers) or {layer.__name__}.from_batch_norm" in message
        )
        assert "Missing" not in message and "Unexpected" not in message
