"""What the host reads: with the solver minimax nothing, with eigh one flag per decomposition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forms import WHITENING
from no_reads import HostRead, counted_reads, no_reads
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


ONE_FLAG = {"_linalg_eigh": 1, "_local_scalar_dense": 1}  # the driver, and the check of its factors
WITH_EIGH: dict[str, Callable[[], nn.Module]] = {
    "whitening": partial(oc.DecorrelatedBatchNorm2d, 6, groups=2),
    "whitening, cumulative": partial(oc.DecorrelatedBatchNorm2d, 6, momentum=None, eps=0.0),
    "whitening, untracked": partial(oc.DecorrelatedBatchNorm2d, 6, track_running_stats=False),
    "whitening, root": partial(oc.DecorrelatedBatchNorm2d, 6, running="root", affine=False),
    "pooling, low-rank": partial(oc.GlobalCovariancePool2d, 6, 4),
    "pooling, low-rank, eps": partial(oc.GlobalCovariancePool2d, 6, 4, eps=1e-3),
    "pooling, eigh": partial(oc.GlobalCovariancePool2d, 6, 4, "eigh"),
    "pooling, eigh, pade": partial(oc.GlobalCovariancePool2d, 6, 4, "eigh", "pade"),
}


@pytest.mark.parametrize("name", WITH_EIGH)
def test_a_step_with_eigh_reads_one_flag(name: str) -> None:
    layer = WITH_EIGH[name]()
    model = network(layer)
    x = torch.randn(4, 2, 7, 7)
    model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with counted_reads() as found:
        step(model, optimizer, x)
    assert found == ONE_FLAG


@pytest.mark.parametrize("name", WITH_EIGH)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_evaluation_with_eigh_reads_one_flag(name: str, with_gradients: bool) -> None:
    """A forward after the first compares what the cached root or map was computed from."""
    layer = WITH_EIGH[name]()
    model, x = network(layer), torch.randn(4, 2, 7, 7)
    model(x)
    model.eval()
    with torch.set_grad_enabled(with_gradients):
        with counted_reads() as first:
            model(x)
        with counted_reads() as second:
            model(x)
    if name in ("whitening", "whitening, cumulative"):
        assert first == ONE_FLAG
        assert second == {"equal": 1 if with_gradients else 2}  # covariance; and gamma in the map
    elif name == "whitening, root":
        assert not first and second == {"equal": 1}
    else:
        assert first == second == ONE_FLAG


FLAG = {"_local_scalar_dense": 1}


@pytest.mark.parametrize(
    ("function", "forward", "backward"),
    [
        (oc.matrix_sqrt, 1, FLAG),  # the backward refuses singular matrices
        (oc.matrix_inv_sqrt, 2, {}),  # the forward does
        (oc.matrix_log, 2, {}),
        (partial(oc.matrix_power, p=0.5), 2, FLAG),
        (partial(oc.matrix_power, p=-2.5), 2, {}),
        (oc.covariance_sqrt, 2, {}),
    ],
)
def test_a_function_with_eigh_reads_its_check_and_its_refusal(
    function: Callable[[Tensor], Tensor], forward: int, backward: dict[str, int]
) -> None:
    A = torch.randn(5, 3, 8, dtype=torch.float64)
    A = (A if function is oc.covariance_sqrt else A @ A.mT).requires_grad_()
    with counted_reads() as found:
        F = function(A)
    assert found == {"_linalg_eigh": 1, "_local_scalar_dense": forward}
    with counted_reads() as found:
        F.sum().backward()
    assert found == backward


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
