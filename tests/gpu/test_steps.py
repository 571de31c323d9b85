"""Training steps that never wait for the device, in a CUDA graph, and compiled as one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from forms import OfSequences, OfVectors, OfVolumes
from torch import Tensor, nn

import orthocond as oc

pytestmark = pytest.mark.gpu

DBN = partial(oc.DecorrelatedBatchNorm2d, 6)
GCP = partial(oc.GlobalCovariancePool2d, 6, 4)
MINIMAX: dict[str, Callable[[], nn.Module]] = {
    "whitening": partial(DBN, solver="minimax"),
    "whitening in groups, cumulative": partial(DBN, groups=2, momentum=None, solver="minimax"),
    "whitening of vectors": partial(OfVectors, 6, solver="minimax"),
    "whitening of sequences": partial(OfSequences, 6, solver="minimax"),
    "whitening of volumes": partial(OfVolumes, 6, solver="minimax"),
    "pooling": partial(GCP, solver="minimax", eps=1e-3),
}
COMPILED = MINIMAX | {
    "whitening by newton-schulz": partial(DBN, solver="newton-schulz"),
    "pooling by newton-schulz": partial(GCP, solver="newton-schulz"),
    "pooling by the average": partial(GCP, solver="average"),
    "pooling by the low-rank root": partial(GCP, solver="low-rank"),
    "pooling by eigh": partial(GCP, solver="eigh", eps=1e-3),
}
CLOSE = 1e-9  # float64, of which a few steps amplify the rounding


class Trained:
    """A small network, its optimizer, and batches on the device."""

    def __init__(self, layer: nn.Module, device: torch.device) -> None:
        torch.manual_seed(0)
        flat = [nn.Flatten()] if layer(torch.randn(2, 6, 5, 5)).dim() == 4 else []
        model = nn.Sequential(nn.Conv2d(2, 6, 3), layer, *flat, nn.LazyLinear(3))
        model(torch.randn(4, 2, 7, 7))  # makes the lazy layer's weights
        self.model = model.double().to(device)
        self.layer = layer
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.batches = torch.randn(8, 4, 2, 7, 7, dtype=torch.float64).to(device)

    def step(self, x: Tensor, model: Callable[[Tensor], Tensor] | None = None) -> None:
        self.optimizer.zero_grad()
        (model or self.model)(x).square().mean().backward()
        self.optimizer.step()

    def state(self) -> list[Tensor]:
        """Weights and buffers."""
        return [t.detach().double().cpu() for t in self.model.state_dict().values()]


def assert_same(ours: Trained, expected: Trained) -> None:
    for a, b in zip(ours.state(), expected.state(), strict=True):
        torch.testing.assert_close(a, b, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", MINIMAX)
def test_a_step_does_not_wait_for_the_device(name: str, cuda: torch.device) -> None:
    trained = Trained(MINIMAX[name](), cuda)
    for x in trained.batches[:2]:
        trained.step(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x in trained.batches[2:]:
            trained.step(x)
        with torch.no_grad():
            trained.model.eval()(trained.batches[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(t.isfinite().all() for t in trained.state())


@pytest.mark.parametrize("name", MINIMAX)
def test_a_cuda_graph_takes_the_steps_of_eager(name: str, cuda: torch.device) -> None:
    ours, eager = Trained(MINIMAX[name](), cuda), Trained(MINIMAX[name](), cuda)
    ours.model.load_state_dict(eager.model.state_dict())
    batches = eager.batches
    for x in batches:
        eager.step(x)
    x = batches[0].clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for batch in batches[:3]:
            x.copy_(batch)
            ours.step(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    ours.optimizer.zero_grad()
    with torch.cuda.graph(graph):
        ours.step(x)
    for batch in batches[3:]:
        x.copy_(batch)
        graph.replay()
    assert_same(ours, eager)
    outcomes: Any = ours.layer.outcomes
    before = outcomes.failures
    x.fill_(float("nan"))
    graph.replay()
    assert outcomes.failures > before  # a replay counts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_network_is_the_eager_one(
    name: str, training: bool, device: torch.device
) -> None:
    torch._dynamo.reset()
    eager = Trained(COMPILED[name](), device)
    ours = copy.deepcopy(eager)
    ours.optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.01, momentum=0.9)
    eager.model.train(training)
    ours.model.train(training)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    model = torch.compile(ours.model, fullgraph=True, backend=backend)
    for x in eager.batches[:3]:
        torch.testing.assert_close(model(x), eager.model(x), rtol=CLOSE, atol=CLOSE)
        ours.step(x, model)
        eager.step(x)
        for a, b in zip(ours.model.parameters(), eager.model.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=CLOSE, atol=CLOSE)
    assert_same(ours, eager)
