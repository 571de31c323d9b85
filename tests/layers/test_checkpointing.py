"""Layers inside of torch.utils.checkpoint: each forward runs twice, and gradients stay the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from forms import WHITENING
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import orthocond as oc

RULES = [("eigh", rule) for rule in ("exact", "pade", "taylor", "raw")]
Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {
    "torch": nn.BatchNorm2d,
    **{f"{s}-{r}": partial(oc.DecorrelatedBatchNorm2d, solver=s, backward=r) for s, r in RULES},
    "newton-schulz": partial(oc.DecorrelatedBatchNorm2d, solver="newton-schulz"),
    "groups": partial(oc.DecorrelatedBatchNorm2d, groups=2),
    **{name: partial(layer, groups=2) for name, layer in WHITENING.items() if name != "2d"},
    "plain": partial(oc.DecorrelatedBatchNorm2d, affine=False, track_running_stats=False),
}
FORMS = pytest.mark.parametrize("form", ["groups", "vectors", "sequences", "3d"])
KINDS = pytest.mark.parametrize("use_reentrant", [False, True])


def block(norm: Norm, depth: int = 4) -> nn.Sequential:
    """Convolutions with norms behind them, the last layer a norm."""
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm(4)) for _ in range(depth)]
    return nn.Sequential(*parts)


def images() -> Tensor:
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """The output and all gradients, for a dl/dy that differs from entry to entry."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = run(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    of_parameters = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **of_parameters}


def assert_equal(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def counts(model: nn.Module) -> list[int]:
    return [int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]


@KINDS
@pytest.mark.parametrize("name", NORMS)
def test_a_block_runs_twice_and_has_the_same_gradients(name: str, use_reentrant: bool) -> None:
    plain = block(NORMS[name])
    ours = copy.deepcopy(plain)
    run = partial(checkpoint, ours, use_reentrant=use_reentrant)
    assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
    assert set(counts(ours)) <= {2} and set(counts(plain)) <= {1}
    plain(images())
    assert_equal(ours.state_dict(), plain.state_dict())


@KINDS
@FORMS
@pytest.mark.parametrize("training", [True, False])
def test_under_autocast(training: bool, form: str, use_reentrant: bool) -> None:
    plain = block(NORMS[form]).train(training)
    ours = copy.deepcopy(plain)
    run = partial(checkpoint, ours, use_reentrant=use_reentrant)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
    assert set(counts(ours)) == ({2} if training else {0})


def test_nested_checkpoints() -> None:
    """The inner block runs in the forward, in the outer block's recomputation, and in its own."""
    for name in ("torch", "eigh-exact", "newton-schulz", "vectors", "sequences", "3d"):
        norm = NORMS[name]
        plain = block(norm)
        ours = copy.deepcopy(plain)

        def run(x: Tensor, ours: nn.Sequential = ours) -> Tensor:
            return checkpoint(
                lambda x: ours[3](checkpoint(ours[:3], x, use_reentrant=False)),
                x,
                use_reentrant=False,
            )

        assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
        assert counts(ours) == [3, 3, 3, 2]


@FORMS
def test_sequential_checkpoints(form: str) -> None:
    plain = block(NORMS[form])
    ours = copy.deepcopy(plain)

    def run(x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint_sequential(ours, 2, x, use_reentrant=False)

    assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
    assert counts(ours) == [2, 2, 1, 1]  # torch runs the last segment as it is


@pytest.mark.parametrize("is_recomputed", [True, False])
@pytest.mark.parametrize("name", ["eigh-exact", "newton-schulz", "vectors", "sequences", "3d"])
def test_a_graph_is_gone_through_twice_where_it_is_kept(name: str, is_recomputed: bool) -> None:
    model = block(NORMS[name])
    x = images().requires_grad_()
    y = checkpoint(model, x, use_reentrant=False) if is_recomputed else model(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    once = torch.autograd.grad(y, [x, *model.parameters()], g, retain_graph=True)
    again = torch.autograd.grad(y, [x, *model.parameters()], g)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x, g)


def test_a_failed_batch_stays_a_failed_batch() -> None:
    for name in ("groups", "newton-schulz", "vectors", "sequences", "3d"):
        model = block(NORMS[name], depth=2)
        x = images()
        x[0, 0, 0, 0] = torch.nan
        y = checkpoint(model, x.requires_grad_(), use_reentrant=False)
        y.sum().backward()
        assert y.isnan().any() and x.grad.isnan().any() and counts(model)[0] == 0


@pytest.mark.parametrize("form", WHITENING)
def test_a_block_without_a_gradient_of_its_input(form: str) -> None:
    """The first layer of a network then needs no derivative of its root."""
    layer = WHITENING[form](4)
    layer(images()).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    checkpoint(layer, images(), use_reentrant=False).square().sum().backward()
    assert torch.equal(layer.weight.grad, expected) and counts(layer) == [1 + 2]


def test_nothing_is_held_beside_the_saved_tensors() -> None:
    """Hooks on saved tensors see all that the backward needs, as checkpoints and offloading do."""
    for solver, of in product(("eigh", "newton-schulz"), WHITENING.values()):
        layer = of(4, groups=2, solver=solver)
        seen: list[Tensor] = []

        def pack(t: Tensor, seen: list[Tensor] = seen) -> int:
            seen.append(t.clone())
            return len(seen) - 1

        with torch.autograd.graph.saved_tensors_hooks(pack, seen.__getitem__):
            y = layer(images().requires_grad_())
        context = y.grad_fn
        while not hasattr(context, "__dict__"):  # views, back to the node of the whitening
            context = context.next_functions[0][0]
        assert not any(isinstance(value, Tensor) for value in vars(context).values())
        assert {t.numel() for t in seen} >= {3 * 4 * 5 * 6, 4, 2 * 2 * 2, 1}


@KINDS
@pytest.mark.parametrize(
    "settings",
    [
        *({"solver": s} for s in ("low-rank", "eigh", "newton-schulz", "average")),
        {"normalization": "power", "power": 0.7},
        {"normalization": "log", "eps": 1e-2},
    ],
    ids=str,
)
def test_covariance_pooling(settings: dict[str, Any], use_reentrant: bool) -> None:
    torch.manual_seed(0)
    plain = oc.GlobalCovariancePool2d(4, 3, **settings)
    ours = copy.deepcopy(plain)
    run = partial(checkpoint, ours, use_reentrant=use_reentrant)
    assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
    assert counts(ours) == [2]


@KINDS
@pytest.mark.parametrize("mode", ["composed", "series"])
def test_a_skew_orthogonal_convolution_keeps_its_kernel(mode: str, use_reentrant: bool) -> None:
    """The power iteration moves with the forward, and not again with its recomputation."""
    torch.manual_seed(0)
    plain = oc.SkewOrthogonalConv2d(4, 6, 3, mode=mode)
    ours = copy.deepcopy(plain)
    run = partial(checkpoint, ours, use_reentrant=use_reentrant)
    for _ in range(3):
        assert_equal(gradients(ours, run, images()), gradients(plain, plain, images()))
        assert_equal(ours.state_dict(), plain.state_dict())


@pytest.mark.parametrize(("mode", "whole"), [("composed", True), ("series", False)])
def test_a_compiled_skew_orthogonal_convolution_keeps_its_kernel(mode: str, whole: bool) -> None:
    """Compiled with the checkpoint around it, or inside of the checkpoint alone."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = oc.SkewOrthogonalConv2d(4, 6, 3, mode=mode).double()
    ours = copy.deepcopy(plain)
    compiled = partial(torch.compile, fullgraph=True, backend="aot_eager")
    if whole:
        run = compiled(partial(checkpoint, ours, use_reentrant=False))
    else:
        run = partial(checkpoint, compiled(ours), use_reentrant=False)
    for _ in range(2):
        x = images().double()
        expected = gradients(plain, plain, x)
        for name, value in gradients(ours, run, x).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)
        for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
