"""Networks with spectral layers, recorded by torch.fx and equal to the network before."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

import orthocond as oc
from orthocond.layers import CovarianceRoot


def features(layer: nn.Module, after: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(stem=nn.Conv2d(3, 8, 3, padding=1), spectral=layer, after=after or nn.ReLU())
    )


def folded() -> nn.Module:
    return oc.fold(features(oc.DecorrelatedBatchNorm2d(8)).eval())


def treated() -> nn.Module:
    model = features(nn.Conv2d(8, 8, 3, padding=1))
    oc.treat(model, "spectral", "ow")
    return model


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "whitening": lambda: features(oc.DecorrelatedBatchNorm2d(8)),
    "whitening of vectors": lambda: features(nn.Flatten(2), oc.DecorrelatedBatchNorm1d(8)),
    "pooling": lambda: features(oc.GlobalCovariancePool2d(8, 4)),
    "root": lambda: features(CovarianceRoot()),
    "orthogonal convolution": lambda: features(oc.SkewOrthogonalConv2d(8, 8, 3)),
    "treated by ow": treated,
    "folded": folded,
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_recorded_network_computes_what_the_network_computes(name: str, training: bool) -> None:
    model = LAYERS[name]().train(training)
    x = torch.randn(4, 3, 6, 6)
    graph = symbolic_trace(deepcopy(model))  # training changes the state of a layer
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == [
        "stem",
        "spectral",
        "after",
    ]
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)


def test_a_recorded_whitening_layer_still_updates_its_statistics() -> None:
    model = features(oc.DecorrelatedBatchNorm2d(8))
    before = model.spectral.running_mean.clone()
    symbolic_trace(model)(torch.randn(4, 3, 6, 6) + 1)
    assert not torch.equal(model.spectral.running_mean, before)


def test_keyword_arguments_are_recorded() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = oc.DecorrelatedBatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(input=x)

    model, x = Named().eval(), torch.randn(2, 3, 4, 4)
    assert torch.equal(symbolic_trace(model)(x), model(x))


def test_torchvision_extracts_features_after_spectral_layers() -> None:
    model = resnet18(num_classes=10)
    model.bn1 = oc.DecorrelatedBatchNorm2d(64)
    model.layer3 = model.layer4 = nn.Identity()
    model.avgpool, model.fc = oc.GlobalCovariancePool2d(128, 16), nn.Linear(136, 10)
    oc.treat(model, "conv1", "sn")
    extract = create_feature_extractor(model.eval(), ["bn1", "avgpool", "fc"]).eval()
    x = torch.randn(2, 3, 32, 32)
    found = extract(x)
    assert found["bn1"].shape == (2, 64, 16, 16) and found["avgpool"].shape == (2, 136)
    assert torch.equal(found["fc"], model(x))


def test_a_layer_that_is_the_root_of_a_trace_is_refused() -> None:
    with pytest.raises(oc.UserError, match=r"expected an input as a torch\.Tensor, got Proxy"):
        symbolic_trace(oc.DecorrelatedBatchNorm2d(3))
