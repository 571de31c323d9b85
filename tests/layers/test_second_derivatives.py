"""Gradient penalties through the layers, against central differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forms import WHITENING
from processes import in_processes
from reference import derivative
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import orthocond as oc
from orthocond.layers.covariance_pool import CovarianceRoot

DBN = oc.DecorrelatedBatchNorm2d
GCP = oc.GlobalCovariancePool2d
Layer = Callable[[], nn.Module]
LAYERS: dict[str, Layer] = {
    "dbn": partial(DBN, 4),
    "dbn-groups": partial(DBN, 4, groups=2),
    "dbn-plain": partial(DBN, 4, affine=False, track_running_stats=False),
    "dbn-minimax": partial(DBN, 4, solver="minimax"),
    **{f"dbn-{name}": partial(layer, 4) for name, layer in WHITENING.items() if name != "2d"},
    "gcp": partial(GCP, 4, 3),
    "gcp-eps": partial(GCP, 4, 3, eps=0.1),
    "gcp-eigh": partial(GCP, 4, 3, solver="eigh", eps=0.1),
    "gcp-minimax": partial(GCP, 4, 3, solver="minimax", eps=0.1),
    "gcp-log": partial(GCP, 4, 3, normalization="log"),
    "gcp-power": partial(GCP, 4, 3, normalization="power", power=0.3),
}
ALL = pytest.mark.parametrize("name", LAYERS)
EVERY_MODE = pytest.mark.parametrize("training", [True, False])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(name: str, training: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    layer(normal(8, 4, 4, 4, seed=3))  # running statistics that are not the initial ones
    for i, p in enumerate(layer.parameters()):
        p.data += 0.3 * normal(*p.shape, seed=i)
    if name.startswith("gcp"):
        layer.relu = nn.Softplus()  # central differences need a smooth function
    return layer.train(training)


def penalty(layer: nn.Module, x: Tensor, run: Callable[..., Tensor] | None = None) -> Tensor:
    """|dl/dx|^2 of a loss l that is not linear in the layer's output."""
    y = (run or layer)(x)
    (g,) = torch.autograd.grad((y.sin() * y).sum(), x, create_graph=True)
    return g.square().sum()


@ALL
@EVERY_MODE
def test_a_gradient_penalty_is_that_of_central_differences(name: str, training: bool) -> None:
    """The central differences need first gradients only. They run without a graph of theirs."""
    layer, x = built(name, training), normal(3, 4, 3, 2, seed=1).requires_grad_()
    tensors = dict(layer.named_parameters()) | {"x": x}
    gradients = torch.autograd.grad(penalty(layer, x), list(tensors.values()), allow_unused=True)
    for seed, (key, value), g in zip(range(9), tensors.items(), gradients, strict=False):
        direction = normal(*value.shape, seed=seed + 5)

        def at(moved: Tensor, key: str = key) -> Tensor:
            inputs = {k: v.detach() for k, v in tensors.items()} | {key: moved.detach()}
            here = inputs.pop("x").requires_grad_()
            y = torch.func.functional_call(layer, inputs, (here,))
            return torch.autograd.grad((y.sin() * y).sum(), here)[0].square().sum()

        slope = derivative(at, value.detach(), direction, 1e-5)
        ours = 0.0 if g is None else (g * direction).sum().item()
        assert ours == pytest.approx(slope.item(), rel=1e-6, abs=1e-7), key


@ALL
@EVERY_MODE
def test_gradgradcheck(name: str, training: bool) -> None:
    layer, x = built(name, training), normal(2, 4, 3, 2, seed=1).requires_grad_()
    assert gradcheck(layer, x, fast_mode=True)
    assert gradgradcheck(layer, x, fast_mode=True)


@pytest.mark.parametrize("name", ["dbn-groups", "dbn-vectors", "dbn-sequences", "dbn-3d", "gcp"])
def test_a_penalty_in_float32(name: str) -> None:
    layer, x = built(name), normal(3, 4, 3, 2, seed=1).requires_grad_()
    exact = torch.autograd.grad(penalty(layer, x), x)[0]
    x32 = x.detach().float().requires_grad_()
    (ours,) = torch.autograd.grad(penalty(layer.float(), x32), x32)
    assert ours.dtype == torch.float32
    assert torch.dist(ours.double(), exact) < 1e-4 * exact.norm()


@ALL
def test_the_first_gradient_is_the_same_with_a_graph(name: str) -> None:
    layer = built(name)
    x = normal(3, 4, 3, 2, seed=1).requires_grad_()
    inputs = [x, *layer.parameters()]
    plain = torch.autograd.grad(layer(x).sin().sum(), inputs)
    graph = torch.autograd.grad(layer(x).sin().sum(), inputs, create_graph=True)
    for a, b in zip(plain, graph, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [*({"backward": rule} for rule in ("pade", "taylor", "raw")), {"solver": "newton-schulz"}],
    ids=str,
)
def test_other_rules_have_a_first_derivative_only(options: dict[str, Any]) -> None:
    """In evaluation the running covariance is a constant, and nothing is refused."""
    x = normal(3, 4, 3, 2, seed=1).requires_grad_()
    for of in WHITENING.values():
        layer = of(4, **options).double()
        (plain,) = torch.autograd.grad(layer(x).sin().sum(), x)
        (g,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
        assert torch.equal(g, plain)
        line = "first derivative only with this solver or backward"
        with pytest.raises(oc.UserError, match=line):
            g.sum().backward()
        penalty(layer.eval(), x).backward()
    pool = GCP(
        4, 3, solver=options.get("solver", "eigh"), backward=options.get("backward", "exact")
    )
    with pytest.raises(oc.UserError, match="has a first derivative only"):
        penalty(pool.double(), x).backward()


def test_a_dead_channel_has_a_kink_and_eps_removes_it() -> None:
    x = normal(2, 4, 3, 3, seed=1).requires_grad_()
    for eps in (0.0, 0.1):
        layer = GCP(4, 3, eps=eps).double()
        layer.norm.weight.data[0] = layer.norm.bias.data[0] = 0.0
        if eps:
            penalty(layer, x).backward()
        else:
            with pytest.raises(oc.UserError, match="no second derivative below rank min"):
                penalty(layer, x).backward()


@pytest.mark.parametrize("solver", ["low-rank", "eigh", "minimax"])
def test_a_failed_sample_passes_no_second_derivative_and_the_others_do(solver: Any) -> None:
    root = CovarianceRoot(solver, eps=0.1)
    x = normal(2, 4, 3, 3, seed=1)
    alone = x[:1].clone().requires_grad_()
    penalty(root, alone).backward()
    x[1, 0, 0, 0] = torch.nan
    penalty(root, x.requires_grad_()).backward()
    assert x.grad is not None and alone.grad is not None and not x.grad[1].any()
    torch.testing.assert_close(x.grad[:1], alone.grad)


@pytest.mark.parametrize("name", ["dbn", "dbn-vectors", "dbn-sequences", "dbn-3d", "gcp"])
def test_under_a_checkpoint(name: str) -> None:
    plain = built(name)
    x = normal(3, 4, 3, 2, seed=1).requires_grad_()
    (expected,) = torch.autograd.grad(penalty(plain, x), x)
    run = partial(checkpoint, plain, use_reentrant=False)
    (ours,) = torch.autograd.grad(penalty(plain, x, run), x)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def summed_penalties(rank: int, world: int, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for name in ("dbn", "dbn-vectors", "dbn-sequences", "dbn-3d"):
        layer, share = built(name), x.chunk(world)[rank].clone().requires_grad_()
        penalty(layer, share).backward()
        assert share.grad is not None and layer.weight.grad is not None
        found[name] = share.grad, layer.weight.grad
    return found


def test_processes_have_the_penalty_of_their_batches_together(tmp_path: Path) -> None:
    x = normal(6, 4, 3, 2, seed=1)
    alone = summed_penalties(0, 1, x)
    one, two = in_processes(tmp_path, summed_penalties, x)
    for name, (whole, of_weight) in alone.items():
        torch.testing.assert_close(torch.cat([one[name][0], two[name][0]]), whole)
        torch.testing.assert_close(one[name][1] + two[name][1], of_weight)
