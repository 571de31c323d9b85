"""Stale running statistics and their cure, against the statistics of one big batch."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from forms import WHITENING, shaped
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.moments import CHUNK
from orthocond.layers.recalibration import recalibrate
from orthocond.spectral.eigh import DecompositionError


def deep() -> nn.Sequential:
    """Registered in another order than it runs in."""

    class Backwards(nn.Sequential):
        def forward(self, x):
            for module in reversed(self):
                x = module(x)
            return x

    torch.manual_seed(0)
    return Backwards(
        DecorrelatedBatchNorm2d(4, momentum=1.0),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(),
        DecorrelatedBatchNorm2d(6, groups=2, momentum=1.0),
        nn.Conv2d(3, 6, 3),
    )


def as_in_one_batch(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the model makes of all images at once, whitened by their own statistics."""
    for module in model.modules():
        if isinstance(module, DecorrelatedBatchNorm2d):
            module.track_running_stats = False
    with torch.no_grad():
        return model.eval()(images)


def close(a: torch.Tensor, b: torch.Tensor, pixels: int) -> bool:
    """Equal up to the n / (n - 1) between a batch covariance and an unbiased one."""
    return bool((a - b).norm() < 2 / pixels * b.norm())


@pytest.mark.parametrize("form", WHITENING)
def test_recalibration_replaces_stale_statistics(form):
    """A rotation of the features leaks the largest eigenvalue into the smallest directions."""
    torch.manual_seed(0)
    images = torch.randn(64, 4, 4, 4) * torch.tensor([10.0, 1, 0.1, 0.1]).view(4, 1, 1)
    norm = WHITENING[form](4, eps=1e-4)
    model = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), norm)
    with torch.no_grad():
        for angle in torch.linspace(0, 0.5, 20):  # a weight that moves while averages are taken
            rotation = torch.eye(4)
            rotation[0, 0] = rotation[2, 2] = angle.cos()
            rotation[0, 2], rotation[2, 0] = -angle.sin(), angle.sin()
            model[0].weight.copy_(rotation[:, :, None, None])
            trained = model(images)
        stale = model.eval()(images)
        recalibrate(norm, [shaped(norm, part) for part in model[0](images).split(24)])
        cured = model(images)
    assert (stale - trained).norm() > 0.3 * trained.norm()
    assert close(cured, trained, 64 * 16)


@pytest.mark.parametrize("form", ["tensors", "pairs", "lists", "dicts", "dicts first", "iterator"])
def test_several_layers_are_set_in_forward_order(form):
    images = torch.randn(20, 3, 5, 5)
    batches = {
        "tensors": images.split(7),
        "pairs": [(part, torch.zeros(len(part))) for part in images.split(7)],
        "lists": [[part, "a name", None] for part in images.split(7)],
        "dicts": [{"x": part} for part in images.split(7)],
        "dicts first": [({"x": part}, 3) for part in images.split(7)],
        "iterator": iter(images.split(7)),
    }[form]
    model = deep()
    recalibrate(model, batches)
    with torch.no_grad():
        recalibrated = model.eval()(images)
    assert close(recalibrated, as_in_one_batch(model, images), 20 * 9)


def test_batch_norm_is_recalibrated_when_it_is_named():
    torch.manual_seed(0)
    images = 3 + torch.randn(30, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    recalibrate(model, images.split(8), layers=["1"])
    x = model[0](images)
    assert torch.allclose(model[1].running_mean, x.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(model[1].running_var, x.transpose(0, 1).flatten(1).var(1))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (oc.DecorrelatedBatchNorm1d, (30, 5)),
        (oc.DecorrelatedBatchNorm1d, (30, 5, 4)),
        (oc.DecorrelatedBatchNorm3d, (30, 5, 2, 3, 2)),
        (nn.BatchNorm1d, (30, 5)),
        (nn.BatchNorm1d, (30, 5, 4)),
        (nn.BatchNorm3d, (30, 5, 2, 3, 2)),
        (nn.SyncBatchNorm, (30, 5, 4)),
    ],
)
def test_layers_of_every_dimension_are_recalibrated(norm, shape):
    torch.manual_seed(0)
    x = 3 + torch.randn(shape)
    model = nn.Sequential(norm(5))
    recalibrate(model, x.split(8), ["0"])
    samples = x.transpose(0, 1).flatten(1)
    assert torch.allclose(model[0].running_mean, samples.mean(1), atol=1e-6)
    if hasattr(model[0], "running_covariance"):
        assert torch.allclose(model[0].running_covariance[0], samples.cov(), atol=1e-5)
    else:
        assert torch.allclose(model[0].running_var, samples.var(1), atol=1e-5)
    wrong = torch.zeros(2, 5, 1, 1) if norm is not nn.SyncBatchNorm else torch.zeros(5)
    with pytest.raises(UserError, match=r"layer '0' expects an input of shape \(B, 5.*, got \("):
        recalibrate(model, [wrong], ["0"])


def test_only_the_layers_before_run_and_in_evaluation_mode():
    class Watch(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    seen: list[tuple[bool, bool]] = []
    model = nn.Sequential(Watch(), DecorrelatedBatchNorm2d(3), Watch())
    model.train()
    model[2].eval()
    recalibrate(model, torch.randn(12, 3, 2, 2).split(4))
    assert seen == [(False, False)] * 4  # the first batch shows that the layer is called once
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert model[1].num_batches_tracked == 0


class Siamese(nn.Module):
    """Branches that share a convolution and a norm; the second is there for a part of the calls."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), norm(4)

    def forward(self, *images):
        return sum(self.norm(self.conv(x)) for x in images)


@pytest.mark.parametrize("norm", [DecorrelatedBatchNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("counts", [(2, 2, 2), (2, 1, 2), (3, 2, 1, 1, 3)])
def test_all_calls_of_a_shared_layer_count(norm, counts):
    torch.manual_seed(0)
    model = Siamese(norm)
    batches = [[(i + 1) * torch.randn(5, 3, 4, 4) + i for i in range(n)] for n in counts]
    recalibrate(model, batches, ["norm"], forward=lambda model, batch: model(*batch))
    with torch.no_grad():
        x = model.conv(torch.cat([part for batch in batches for part in batch]))
    x = x.transpose(0, 1).flatten(1)
    assert torch.allclose(model.norm.running_mean, x.mean(1), atol=1e-5)
    if norm is nn.BatchNorm2d:
        assert torch.allclose(model.norm.running_var, x.var(1), rtol=1e-5)
    else:
        assert torch.allclose(model.norm.running_covariance[0], x.cov(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [*WHITENING.values(), nn.BatchNorm2d])
def test_a_layer_may_be_called_with_a_keyword(norm):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm(4)

        def forward(self, x):
            return self.norm(input=x)

    torch.manual_seed(0)
    x, model = torch.randn(6, 4, 3, 3), Named()
    x = x if norm is nn.BatchNorm2d else shaped(model.norm, x)
    other = copy.deepcopy(model)
    recalibrate(model, [x], ["norm"])
    recalibrate(nn.Sequential(other.norm), [x], ["0"])
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    expected = other.eval().norm(x)
    assert torch.equal(model.eval()(x), expected)
    if norm is not nn.BatchNorm2d:
        assert torch.allclose(oc.fold(model)(x), expected, atol=1e-5)


class Merging(nn.Linear):
    """A layer that does more in ``train`` than set a flag, as those of loralib do."""

    def __init__(self, width):
        super().__init__(width, width)
        self.merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


@pytest.mark.parametrize("frozen", [[], ["0"], ["1.0"], ["1"], ["", "1.0"], ["1", "2"]])
def test_modules_that_override_train_are_told(frozen):
    inner = nn.Sequential(Merging(3), Merging(3))
    model = nn.Sequential(Merging(3), inner, nn.Sequential(inner[1], nn.BatchNorm1d(3)))
    model.append(oc.DecorrelatedBatchNorm1d(3))
    for name in frozen:
        model.get_submodule(name).eval()
    if "" in frozen:
        inner[1].train()
    flags = [m.training for m in model.modules()]
    recalibrate(model, [torch.randn(20, 3)])
    assert [m.training for m in model.modules()] == flags
    for module in model.modules():
        if isinstance(module, Merging):
            assert module.merged is not module.training


def test_bad_input_is_named():
    images = [torch.randn(4, 3, 2, 2)]
    whitened = nn.Sequential(DecorrelatedBatchNorm2d(3))
    with pytest.raises(ValueError, match=r"no whitening layer.*layers=\['bn1'\]"):
        recalibrate(nn.Sequential(nn.BatchNorm2d(3)), images)
    with pytest.raises(ValueError, match=r"unknown layer 'norms'.*did you mean 'norm'\?"):
        recalibrate(nn.ModuleDict({"norm": nn.BatchNorm2d(3)}), images, ["norms"])
    with pytest.raises(ValueError, match=r"layer '0' is a ReLU without running statistics"):
        recalibrate(nn.Sequential(nn.ReLU()), images, ["0"])
    with pytest.raises(ValueError, match=r"layers is the string '03': pass a list, as in \['03'\]"):
        recalibrate(deep(), images, "03")  # not the layers '0' and '3'
    with pytest.raises(ValueError, match=r"layers is empty: leave it out"):
        recalibrate(whitened, images, [])
    with pytest.raises(ValueError, match=r"layer '0' received 0 pixels"):
        recalibrate(whitened, [])
    with pytest.raises(ValueError, match="no batch to recalibrate from"):
        recalibrate(deep(), [])
    beside = deep()
    beside.unused = nn.Sequential(DecorrelatedBatchNorm2d(3))
    beside.forward = lambda x: nn.Sequential(*list(beside)[-2::-1])(x)
    with pytest.raises(ValueError, match=r"does not reach 'unused.0'"):
        recalibrate(beside, [torch.randn(4, 3, 5, 5)])


@pytest.mark.parametrize("layers", [None, ["0", "3"]])
def test_a_forward_of_the_callers_runs_any_batch(layers):
    """It wins where the batch is of a kind that has a default, too."""
    torch.manual_seed(0)
    images = torch.randn(20, 3, 5, 5)
    expected, seen = deep(), []
    recalibrate(expected, images.split(7), layers)
    given = deep()

    def run(model, batch):
        seen.append((model is given, model.training, torch.is_grad_enabled()))
        return model(batch[1]["nested"][0])

    for batches in (
        [("id", {"nested": (part,)}) for part in images.split(7)],
        [(torch.zeros(1), {"nested": [part]}) for part in images.split(7)],
    ):
        given = deep()
        recalibrate(given, batches, layers, forward=run)
        for name, value in expected.state_dict().items():
            assert torch.equal(given.state_dict()[name], value), name
    assert set(seen) == {(True, False, False)}


@dataclasses.dataclass
class Sample:
    image: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        ("images", "got str"),
        (Sample(torch.zeros(1)), "got Sample"),
        (np.zeros((4, 3, 2, 2)), "got ndarray"),
        (None, "got NoneType"),
        ((), "got tuple"),
        (("id", torch.zeros(4, 3, 2, 2)), "got tuple that starts with str"),
        ([[torch.zeros(4, 3, 2, 2)], 1], "got list that starts with list"),
        ({0: torch.zeros(4, 3, 2, 2)}, "got dict"),
    ],
)
def test_other_kinds_of_batches_are_refused_without_a_forward(batch, kind):
    model = nn.Sequential(DecorrelatedBatchNorm2d(3))
    with pytest.raises(
        UserError, match=rf"^expected a batch that is .*, {kind}: pass forward="
    ) as e:
        recalibrate(model, [batch])
    assert "\n" not in str(e.value) and model.training
    recalibrate(model, [batch], forward=lambda model, _: model(torch.randn(4, 3, 2, 2)))


def test_tensors_inside_of_a_batch_go_to_the_models_device():
    """A device on which nothing can be computed but shapes shows where the model's batch is."""
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, device="meta"))
            self.norm = DecorrelatedBatchNorm2d(3)

        def forward(self, x, more=None):
            seen.extend(t.device.type for t in (x, *more["deep"]))
            return self.norm(torch.ones(2, 3, 2, 2))

    x = torch.zeros(2, 3, 2, 2)
    recalibrate(Watch(), [{"x": x, "more": {"deep": [x, x.long()]}}])
    assert seen == ["meta"] * 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(3, 2, 2),
            r"layer '0' expects an input of shape \(B, 3, H, W\), got \(3, 2, 2\)",
        ),
        (torch.zeros(2, 4, 2, 2), r"got \(2, 4, 2, 2\)"),
        (torch.zeros(2, 3, 2, 2).int(), "an input of layer '0' of a real floating dtype, got"),
        (torch.zeros(2, 3, 2, 2) * 1j, "an input of layer '0' of a real floating dtype, got"),
    ],
)
@pytest.mark.parametrize("norm", [DecorrelatedBatchNorm2d, nn.BatchNorm2d])
def test_inputs_that_no_layer_takes_are_named(norm, x, message):
    with pytest.raises(UserError, match=message):
        recalibrate(nn.Sequential(norm(3)), [x], ["0"])


@pytest.mark.parametrize("names", [None, ["0", "3"], ["module.0", "3"]])
def test_averaged_weights_get_statistics_of_their_own(names):
    """``update_bn`` has no batch norm to fill, and says nothing."""
    torch.manual_seed(0)
    images = torch.randn(20, 3, 5, 5)
    model = deep()
    averaged = AveragedModel(model)
    for step in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * step)
        averaged.update_parameters(model)
    before = copy.deepcopy(averaged.state_dict())
    update_bn(images.split(7), averaged)
    assert all(torch.equal(value, before[name]) for name, value in averaged.state_dict().items())
    recalibrate(averaged, images.split(7), names)
    with torch.no_grad():
        recalibrated = averaged.eval()(images)
    assert close(recalibrated, as_in_one_batch(averaged.module, images), 20 * 9)


def test_names_of_a_wrapper_that_is_not_there_are_refused():
    with pytest.raises(UserError, match=r"unknown layer 'module\.0'"):
        recalibrate(deep(), [torch.randn(4, 3, 5, 5)], ["module.0"])


@pytest.mark.parametrize("names", [["2"], ["0", "2"]])
def test_a_layer_may_have_several_names(names):
    model = nn.Sequential(DecorrelatedBatchNorm2d(3), nn.ReLU())
    expected, images = copy.deepcopy(model[:1]), torch.randn(4, 3, 2, 2)
    recalibrate(expected, [images])
    model.append(model[0])
    recalibrate(model, [images], names, forward=lambda model, x: model[0](x))
    assert torch.equal(model[0].running_covariance, expected[0].running_covariance)


def compiled_inside(model: nn.Module) -> nn.Module:
    """The model with one layer compiled in place, and one wrapped."""
    model[4].compile(backend="eager")
    model[1] = torch.compile(model[1], backend="eager")
    return model


@pytest.mark.parametrize("run_before", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        lambda model: AveragedModel(torch.compile(model, backend="eager")),
        lambda model: torch.compile(AveragedModel(model), backend="eager"),
        nn.DataParallel,
        compiled_inside,
    ],
    ids=["compiled", "averaged compiled", "compiled averaged", "parallel", "inside"],
)
def test_wrappers_are_looked_through(wrap, run_before):
    images = torch.randn(20, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected, wrapped = deep(), wrap(deep())
    if run_before:  # compiled code is there, and knows of no hook
        with torch.no_grad():
            wrapped.eval()(images)
        wrapped.train()
    recalibrate(expected, images.split(7))
    recalibrate(wrapped, images.split(7))
    ours = {
        name.replace("_orig_mod.", "").removeprefix("module."): value
        for name, value in wrapped.state_dict().items()
    }
    for name, value in expected.state_dict().items():
        assert torch.equal(ours[name], value), name
    assert all(module.training for module in wrapped.modules())


def test_a_model_that_was_compiled_in_place():
    """Its code is one graph, which knows of no hook that came later."""
    torch.manual_seed(0)
    images = torch.randn(20, 3, 5, 5)
    expected = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    ours = copy.deepcopy(expected)
    ours.compile(backend="eager", fullgraph=True)
    with torch.no_grad():
        ours.eval()(images)
    for model in (expected, ours):
        recalibrate(model, images.split(7), ["1", "3"])
    for name, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_checkpoints_inside_of_the_model():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = deep()

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False)

    images = torch.randn(20, 3, 5, 5)
    expected, ours = deep(), Checkpointed()
    recalibrate(expected, images.split(7))
    recalibrate(ours, images.split(7))
    for name, value in expected.state_dict().items():
        assert torch.equal(ours.block.state_dict()[name], value), name
    ours(images).sum().backward()  # no hook of a checkpoint is left behind


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision(half):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), DecorrelatedBatchNorm2d(4), nn.BatchNorm2d(4)).to(
        half
    )
    images = 3 + torch.randn(40, 3, 4, 4)
    recalibrate(model, images.to(half).split(7))
    x = model[0](images.to(half)).float().transpose(0, 1).flatten(1)
    assert torch.allclose(model[1].running_mean, x.mean(1), atol=1e-6)
    assert torch.allclose(model[1].running_covariance[0], x.cov(), atol=1e-5)
    recalibrate(model, images.to(half).split(7), ["2"])
    y = model.eval()[:2](images.to(half)).float()
    expected = y.transpose(0, 1).flatten(1).var(1)
    assert torch.allclose(model[2].running_var.float(), expected, rtol=torch.finfo(half).eps)


@pytest.mark.parametrize("form", WHITENING)
def test_nan_leaves_the_statistics_as_they_were(form):
    model = nn.Sequential(WHITENING[form](3))
    with pytest.raises(DecompositionError, match=r"features before '0' hold NaN or Inf"):
        recalibrate(model, [shaped(model[0], torch.full((4, 3, 2, 2), float("nan")))])
    assert model[0].running_covariance.equal(torch.eye(3)[None])
    assert model.training


def test_synchronised_batch_norm_is_recalibrated_as_plain_batch_norm_is():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 4, 4) + 2
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    recalibrate(plain, [images], layers=["1"])
    expected = plain.state_dict()
    plain[1].reset_running_stats()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    recalibrate(synchronised, [images], layers=["1"])
    for name, value in synchronised.state_dict().items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("norm", [DecorrelatedBatchNorm2d, nn.BatchNorm2d])
def test_autocast_does_not_round_the_statistics(norm):
    """Batches above CHUNK elements are not converted to float64 before the products."""
    torch.manual_seed(0)
    images = torch.randn(9, 8, 128, 128) * torch.logspace(0, -2, 8).view(8, 1, 1) + 1
    assert images.numel() > CHUNK
    model = nn.Sequential(norm(8))
    with torch.autocast("cpu", torch.bfloat16):
        recalibrate(model, [images], ["0"])
    P = images.double().transpose(0, 1).flatten(1).cov()
    if norm is nn.BatchNorm2d:
        assert torch.allclose(model[0].running_var.double(), P.diag(), rtol=1e-5, atol=0)
    else:
        assert torch.allclose(model[0].running_covariance[0].double(), P, rtol=1e-5, atol=1e-7)
