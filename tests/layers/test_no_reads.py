"""A training step with the solver minimax: nothing on its path is read by the host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forms import WHITENING
from no_reads import HostRead, no_reads
from torch import Tensor, nn

import orthocond as oc

DBN = partial(oc.DecorrelatedBatchNorm2d, 6, solver="minimax")
GCP = partial(oc.GlobalCovariancePool2d, 6, 4, solver="minimax")
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "whitening": DBN,
    "whitening in groups, cumulative": partial(DBN, groups=2, momentum=None),
    "whitening without eps": partial(DBN, eps=0.0, affine=False),
    "whitening without running statistics": partial(DBN, track_running_stats=False),
    **{
        f"whitening, {name}": partial(layer, 6, solver="minimax")
        for name, layer in WHITENING.items()
        if name != "2d"
    },
    "pooling": GCP,
    "pooling with eps": partial(GCP, eps=1e-3),
}

FORMS = pytest.mark.parametrize("form", WHITENING)


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    flat = [nn.LazyLinear(3)] if isinstance(layer, oc.GlobalCovariancePool2d) else [nn.Flatten()]
    return nn.Sequential(nn.Conv2d(2, 6, 3), layer, *flat)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 0)[torch.tensor([0])],
        lambda x: x.max().tolist(),
        lambda x: torch.equal(x, x),
        lambda x: torch.linalg.eigh(x @ x.mT),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_the_modes_refuse_what_reads(read: Callable[[Tensor], object]) -> None:
    x = torch.randn(3, 4)
    with no_reads(), pytest.raises(HostRead):
        read(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_reads_nothing(name: str) -> None:
    layer = LAYERS[name]()
    model = network(layer)
    x = torch.randn(4, 2, 7, 7)
    model(x)  # makes the lazy layer's weights
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    layer.outcomes.reset()
    with no_reads():
        for _ in range(3):
            step(model, optimizer, x)
        step(model, optimizer, torch.full_like(x, float("nan")))  # a failure is no reason to read
        with torch.no_grad():
            model.eval()(x)
    failures = layer.outcomes.failures
    assert failures > 0 and layer.outcomes.unrecovered > 0
    with pytest.raises(HostRead), no_reads():
        _ = layer.outcomes.failures


@FORMS
def test_eigh_reads(form: str) -> None:
    """So the test above can fail."""
    with pytest.raises(HostRead), no_reads():
        WHITENING[form](6)(torch.randn(4, 6, 5, 5))


@FORMS
def test_a_step_that_shares_its_moments_reads_nothing(form, tmp_path: Path, monkeypatch) -> None:
    """One process with a collective: what two processes run, apart from the other's batch."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
        layer = WHITENING[form](6, solver="minimax")
        model = network(layer)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x = torch.randn(4, 2, 7, 7)
        with no_reads():
            step(model, optimizer, x)
    finally:
        dist.destroy_process_group()
    assert layer.outcomes.failures == 0 and int(layer.num_batches_tracked) == 1


@FORMS
def test_a_failed_batch_changes_no_running_statistics(form: str) -> None:
    for momentum in (0.1, None):
        norm = WHITENING[form](6, solver="minimax", momentum=momentum)
        bad = torch.full((4, 6, 5, 5), float("nan"))
        norm(bad)
        assert int(norm.num_batches_tracked) == 0
        assert norm.running_mean.eq(0).all()
        assert torch.equal(norm.running_covariance[0], torch.eye(6))
        norm(torch.randn(4, 6, 5, 5))
        kept = [b.clone() for b in norm.buffers()]
        norm(bad)
        assert all(torch.equal(a, b) for a, b in zip(kept, norm.buffers(), strict=True))
