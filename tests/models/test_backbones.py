from __future__ import annotations

import pytest
import torch
from torch import nn

from orthocond.config.tasks import TASKS
from orthocond.errors import UserError
from orthocond.layers.covariance_pool import GlobalCovariancePool2d
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.models.backbones import MODELS, build_model
from orthocond.probes import ConditioningProbe, structural_rank

CASES = [
    (task, model, solver)
    for task in MODELS
    for model in MODELS[task]
    for solver in TASKS[task].solvers
]


def built(task: str, model: str, solver: str, seed: int = 0, **settings) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(task, model, solver, 5, **settings)


@pytest.mark.parametrize(("task", "model", "solver"), CASES)
def test_every_network_has_its_layers_and_logits(task, model, solver):
    network = built(task, model, solver).eval()
    assert isinstance(network.get_submodule(TASKS[task].pre_svd), nn.Conv2d)
    kind = GlobalCovariancePool2d if task == "gcp" else DecorrelatedBatchNorm2d
    assert isinstance(network.avgpool, kind) == (task == "gcp")
    assert isinstance(network.bn1, kind) == (task == "dbn" and solver != "bn")
    with torch.no_grad(), ConditioningProbe(network, TASKS[task].meta_layer, every=1) as probe:
        logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5) and logits.isfinite().all() and len(probe.records) == 1


@pytest.mark.parametrize(("task", "size"), [("dbn", 32), ("gcp", 64)])
@pytest.mark.parametrize("solver", ["svd", "ns", "baseline"])
def test_the_small_networks_train_a_step(task, size, solver):
    network = built(task, "small", TASKS[task].baseline if solver == "baseline" else solver)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("model", ["small", "resnet18"])
def test_equal_seeds_give_equal_weights_whatever_the_solver(task, model):
    first, *others = [dict(built(task, model, s).named_parameters()) for s in TASKS[task].solvers]
    different = dict(built(task, model, "svd", seed=1).named_parameters())
    for other in others:
        shared = [n for n in first if n in other and first[n].shape == other[n].shape]
        assert set(first) - set(shared) <= {"fc.weight"}  # gcp: of a width of its own
        assert all(torch.equal(first[n], other[n]) for n in shared if not n.startswith("fc."))
        if task == "dbn":
            assert torch.equal(first["fc.weight"], other["fc.weight"])
    assert not torch.equal(first["conv1.weight"], different["conv1.weight"])


@pytest.mark.parametrize("solver", ["svd", "ns"])
def test_the_stem_averages_what_it_is_told_to(solver):
    assert built("dbn", "small", solver).bn1.running == "covariance"
    assert built("dbn", "small", solver, running="root").bn1.running == "root"


def test_the_wide_stem_changes_no_other_weight():
    narrow, wide = built("dbn", "small", "svd"), built("dbn", "small", "svd", stem_kernel=11)
    assert wide.conv1.weight.shape == (64, 3, 11, 11)
    for name, weight in narrow.named_parameters():
        if name != "conv1.weight":
            assert torch.equal(weight, wide.get_parameter(name))


@pytest.mark.parametrize("model", MODELS["dbn"])
def test_the_stem_is_3x3_with_stride_1_and_its_max_pool_is_kept(model):
    with torch.device("meta"):
        network = build_model("dbn", model, "bn", 10).eval()
        assert (network.conv1.kernel_size, network.conv1.stride) == ((3, 3), (1, 1))
        stem = network.bn1(network.conv1(torch.zeros(1, 3, 32, 32)))
        assert stem.shape == (1, 64, 32, 32)  # all positions are whitened
        assert network.maxpool(stem).shape == (1, 64, 16, 16)
    assert structural_rank(network.conv1, 32 * 32) == 27


@pytest.mark.parametrize("solver", ["svd", "gap"])
def test_the_last_stage_of_gcp_has_14x14_positions_at_224_pixels(solver):
    with torch.device("meta"):
        network = build_model("gcp", "resnet18", solver, 10).eval()
        x = network.maxpool(network.bn1(network.conv1(torch.zeros(1, 3, 224, 224))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
        assert x.shape == (1, 512, 14, 14)
        assert network.avgpool.reduction(x).shape == (1, 256, 14, 14)
        assert network.conv1.stride == (2, 2)  # torchvision's stem, for large images
    assert network.fc.in_features == (256 * 257 // 2 if solver == "svd" else 256)


def test_the_covariance_of_the_small_pooling_network_is_singular():
    network = built("gcp", "small", "svd").eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    shapes = []
    with (
        ConditioningProbe(network, TASKS["gcp"].meta_layer, every=1, per_sample=True) as probe,
        torch.no_grad(),
    ):
        network.get_submodule(TASKS["gcp"].meta_layer).register_forward_pre_hook(
            lambda _, inputs: shapes.append(inputs[0].flatten(2).shape)
        )
        network(images)
    assert shapes == [(2, 96, 64)]
    (record,) = probe.records
    assert record.median.dimension == 96 and record.median.rank <= 63


@pytest.mark.parametrize("task", MODELS)
def test_the_features_before_the_meta_layer_are_float32_under_autocast(task):
    network = built(task, "small", "svd")
    seen = []
    network.get_submodule(TASKS[task].meta_layer).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].dtype)
    )
    inner = []
    network.layers[0].conv1.register_forward_hook(lambda *about: inner.append(about[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(4, 3, 64, 64)).float().sum().backward()
    assert seen == [torch.float32] and inner == [torch.bfloat16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dbm", "small", "svd"), r"unknown task 'dbm': allowed are dbn, gcp; did you mean 'dbn'"),
        (("dbn", "smal", "svd"), r"unknown model for dbn 'smal': .*; did you mean 'small'"),
        (("gcp", "resnet50", "svd"), r"unknown model for gcp 'resnet50': .*mean 'resnet18'"),
        (("dbn", "small", "gap"), r"unknown solver for dbn 'gap': allowed are svd, ns, bn"),
        (("gcp", "small", "svg"), r"unknown solver for gcp 'svg': .*; did you mean 'svd'"),
    ],
)
def test_unknown_names_are_one_line_with_the_nearest_one(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(*arguments, 10)
    assert "\n" not in str(error.value)


def test_another_stem_for_gcp_is_refused():
    with pytest.raises(UserError, match=r"^stem_kernel 11 is for task 'dbn'; 'gcp' keeps its stem"):
        build_model("gcp", "small", "svd", 10, stem_kernel=11)
    assert set(MODELS) == set(TASKS)
