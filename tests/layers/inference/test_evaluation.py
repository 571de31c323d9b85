"""The cached root of a whitening layer in evaluation, against a fresh layer of the same state."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from forms import WHITENING, shaped
from no_reads import no_reads
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers import running_statistics
from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm
from orthocond.layers.inference.evaluation import Cache
from orthocond.layers.moments import CHUNK
from orthocond.layers.running_statistics import RunningStatistics

Layer = oc.DecorrelatedBatchNorm2d


@pytest.fixture(params=WHITENING, autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have ``trained`` build a layer of each dimension, which takes images."""
    monkeypatch.setitem(globals(), "Layer", WHITENING[request.param])
    return request.param


def images(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64)
    return (x * torch.arange(1, 5).view(4, 1, 1) + seed).to(dtype)


def trained(dtype: torch.dtype = torch.float64, **settings) -> DecorrelatedBatchNorm:
    torch.manual_seed(0)
    layer = Layer(4, **settings).to(dtype)
    if layer.affine:
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.normal_(layer.bias)
    layer(images(dtype=dtype))
    return layer.eval()


def plain(layer: DecorrelatedBatchNorm, x: Tensor) -> Tensor:
    """The definition, in float64 and with autograd's own derivatives."""
    groups = layer.groups
    l, U = torch.linalg.eigh(layer.running_covariance.double())
    F = torch.block_diag(*(U * (l + layer.eps).rsqrt().unsqueeze(-2)) @ U.mT)
    y = torch.einsum("ij,bjhw->bihw", F, x.double() - layer.running_mean.view(-1, 1, 1))
    assert groups == len(l)
    return y * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1) if layer.affine else y


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The matrices whose root is computed, counted."""
    calls: list[int] = []
    compute = DecorrelatedBatchNorm._root

    def counted(self: DecorrelatedBatchNorm, covariance: Tensor):
        calls.append(1)
        return compute(self, covariance)

    monkeypatch.setattr(DecorrelatedBatchNorm, "_root", counted)
    return calls


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningStatistics, "_host_may_wait", False)


def step(layer: DecorrelatedBatchNorm) -> None:
    layer.train()(images(7))
    layer.eval()


def average(layer: DecorrelatedBatchNorm) -> None:
    other = copy.deepcopy(layer)
    step(other)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    with torch.no_grad():
        ema([layer.running_covariance], [other.running_covariance], 1)


CHANGES: dict[str, Callable[[DecorrelatedBatchNorm], object]] = {
    "a step": step,
    "recalibrate": lambda m: oc.recalibrate(m, [shaped(m, images(3))]),
    "reset": lambda m: m.reset_running_stats(),
    "in place": lambda m: m.running_covariance.mul_(2),
    "the mean": lambda m: m.running_mean.add_(1),
    "gamma": lambda m: nn.init.uniform_(m.weight, 2, 3),
    "beta": lambda m: nn.init.uniform_(m.bias, 2, 3),
    "loaded": lambda m: m.load_state_dict(other_state()),
    "assigned": lambda m: m.load_state_dict(other_state(), assign=True),
    "a new tensor": lambda m: setattr(m, "running_covariance", 2 * m.running_covariance),
    "an average": average,
}
UNVERSIONED: dict[str, Callable[[DecorrelatedBatchNorm], object]] = {
    "data in place": lambda m: m.running_covariance.data.mul_(2),
    "data assigned": lambda m: setattr(m.running_covariance, "data", 2 * m.running_covariance),
    "numpy": lambda m: m.running_covariance.numpy().__imul__(2),
    "gamma's data": lambda m: m.weight.data.mul_(2),
}


def other_state() -> dict[str, Tensor]:
    layer = trained()
    step(layer)
    return copy.deepcopy(layer.state_dict())


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", [*CHANGES, *UNVERSIONED])
def test_every_change_is_noticed(name: str, gradients: bool) -> None:
    layer, x = trained(), images(1)
    with torch.set_grad_enabled(gradients):
        before = layer(x).detach()
        with torch.no_grad():
            (CHANGES | UNVERSIONED)[name](layer)
        y = layer(x).detach()
        torch.testing.assert_close(y, plain(layer, x).detach(), rtol=1e-10, atol=1e-10)
        assert not torch.equal(y, before)


@pytest.mark.parametrize("name", [*CHANGES, *UNVERSIONED])
def test_without_a_wait_a_change_is_noticed_or_gives_nan(name: str, monkeypatch) -> None:
    """The rule of a GPU with the solver minimax, until the next ``eval()``."""
    as_on_a_gpu(monkeypatch)
    layer, x = trained(solver="minimax"), images(1)
    with torch.no_grad():
        layer(x)
        (CHANGES | UNVERSIONED)[name](layer)
        y = layer(x)
        if name in UNVERSIONED and name != "data assigned":
            assert y.isnan().all()
            y = layer.eval()(x)
        elif y.isnan().all():
            y = layer.eval()(x)
        torch.testing.assert_close(y, plain(layer, x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("by_host", [True, False])
def test_the_root_is_computed_once(by_host: bool, gradients: bool, roots, monkeypatch) -> None:
    if not by_host:
        as_on_a_gpu(monkeypatch)
    layer = trained(solver="eigh" if by_host else "minimax")
    layer(images())
    roots.clear()
    with torch.set_grad_enabled(gradients):
        for seed in range(3):
            layer(images(seed)), layer(images(seed, torch.float32))
    assert len(roots) == 0
    layer.running_covariance.mul_(2)
    for seed in range(3):
        layer(images(seed))
    assert len(roots) == 1


def test_evaluation_with_minimax_reads_nothing(monkeypatch) -> None:
    as_on_a_gpu(monkeypatch)
    layer, x = trained(solver="minimax"), images()
    with torch.no_grad(), no_reads():
        layer(x), layer(x)
    with no_reads():
        layer(x.requires_grad_()).sum().backward()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_small_and_large_inputs_are_the_plain_definition(
    groups: int, layout, form: str, monkeypatch
) -> None:
    layer = trained(groups=groups)
    x = images(1).to(memory_format=layout).requires_grad_()
    g = torch.randn_like(x)
    expected = plain(layer, x)
    wanted = torch.autograd.grad(expected, (x, layer.weight, layer.bias), g)
    for limit in (CHUNK, 10):  # above it the input is processed in chunks
        monkeypatch.setattr(running_statistics, "CHUNK", limit)
        y = layer(x)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        if groups == 1 and form != "vectors":  # whose images are a view in another order
            assert y.is_contiguous(memory_format=layout)
        found = torch.autograd.grad(y, (x, layer.weight, layer.bias), g)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_running_root_is_followed_too() -> None:
    layer, x = trained(running="root"), images(1)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            centred = x - layer.running_mean.view(-1, 1, 1)
            y = torch.einsum("ij,bjhw->bihw", layer.running_root[0], centred)
            y = y * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
            ours = layer(x)
            torch.testing.assert_close(ours, y)
        if gradients:
            slope = torch.autograd.grad(y.square().sum(), layer.weight)[0]
            with torch.no_grad():
                layer.running_root.mul_(2)  # after the forward, before its backward
            found = torch.autograd.grad(ours.square().sum(), layer.weight)[0]
            torch.testing.assert_close(found, slope)


def test_second_derivatives_and_torch_func() -> None:
    layer, x = trained(), images(1)
    layer(x)
    parameters = dict(layer.named_parameters())

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,)).pow(3)

    inputs = [t.detach()[:2].clone().requires_grad_() for t in (x[:, :, :1, :1],)]
    inputs += [t.detach().clone().requires_grad_() for t in parameters.values()]
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(layer, parameters, (sample[None],)).square().sum()

    each = vmap(grad(loss), (None, 0))(parameters, x)
    for name, slopes in each.items():
        for i, sample in enumerate(x):
            single = torch.autograd.grad(loss(parameters, sample), layer.get_parameter(name))[0]
            torch.testing.assert_close(slopes[i], single)
    _, tangent = jvp(
        lambda w: loss({**parameters, "weight": w}, x[0]), (layer.weight,), (x[0, :, 0, 0],)
    )
    slope = torch.autograd.grad(loss(parameters, x[0]), layer.weight)[0]
    torch.testing.assert_close(tangent, slope @ x[0, :, 0, 0])


def test_a_gradient_step_of_gamma_is_seen_without_gradients() -> None:
    layer, x = trained(), images(1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(layer(x), plain(layer, x))
        layer(x).square().sum().backward()
        optimizer.step()


def test_buffers_that_are_passed_to_functional_call() -> None:
    layer, x = trained(), images(1)
    with torch.no_grad():
        before = layer(x)
        P = 2 * layer.running_covariance
        y = functional_call(layer, {"running_covariance": P}, (x,))
        assert torch.equal(layer(x), before)
        layer.running_covariance.copy_(P)
        assert torch.equal(layer(x), y)


def test_inference_mode_and_gradients_in_turn() -> None:
    x = images(1)
    for layer in (trained(), copy.deepcopy(trained())):
        with torch.inference_mode():
            y = layer(x)
        layer(x.requires_grad_()).sum().backward()
        assert torch.equal(layer(x).detach(), y)
    with torch.inference_mode():
        made = trained()
        assert torch.equal(made(x), made(x))


def test_copies_start_empty() -> None:
    layer, x = trained(), images(1)
    y = layer(x).detach()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._roots._entry is None and layer._roots._entry is not None
        assert torch.equal(other(x).detach(), y)
    assert layer.float()(x.float()).dtype == torch.float32
    assert layer.state_dict().keys() == Layer(4).state_dict().keys()


def test_replicas_in_threads_share_a_cache() -> None:
    """As the replicas of ``nn.DataParallel`` do; each has its own running covariance here."""
    layer, x = trained(), images(1)
    P = layer.running_covariance
    results: dict[int, list[Tensor]] = {1: [], 2: [], 3: []}

    def work(replica: DecorrelatedBatchNorm, y: list[Tensor]) -> None:
        with torch.no_grad():
            y.extend(replica(x) for _ in range(20))

    threads = []
    for factor, y in results.items():
        replica = layer._replicate_for_data_parallel()
        replica._parameters.update(layer._parameters)
        replica.running_covariance = factor * P
        threads.append(threading.Thread(target=work, args=(replica, y)))
    [t.start() for t in threads], [t.join() for t in threads]
    for factor, y in results.items():
        with torch.no_grad():
            layer.running_covariance = factor * P
            assert len(y) == 20 and all(torch.equal(each, layer(x)) for each in y)


def test_a_failure_is_counted_once_per_change() -> None:
    layer = trained(eps=0.0)
    layer.outcomes.reset()
    layer.running_covariance.zero_()
    for _ in range(3):
        assert layer(images()).isnan().all()
    assert layer.outcomes.unrecovered == 1


@pytest.mark.parametrize("form", ["2d"], indirect=True)  # to be quick: one compilation
def test_compiled_it_follows_the_statistics() -> None:
    torch._dynamo.reset()
    layer, x = trained(solver="minimax"), images(1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-9, atol=1e-9)
        layer.running_covariance.mul_(2)


SHAPES = {
    oc.DecorrelatedBatchNorm1d: [(5, 4), (5, 4, 7)],
    oc.DecorrelatedBatchNorm2d: [(5, 4, 3, 3), (1, 4, 2, 5)],
    oc.DecorrelatedBatchNorm3d: [(2, 4, 3, 2, 2)],
}
SETTINGS = [
    *({"solver": s, "groups": g} for s in ("eigh", "minimax", "newton-schulz") for g in (1, 2)),
    {"running": "root"},
    {"affine": False},
]


@pytest.mark.parametrize("form", ["2d"], indirect=True)  # the kinds below are all forms
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_cached_path_is_the_uncached_one_to_the_bit(
    kind: type[nn.Module], settings: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients, of inputs below and above a chunk, with and without gradients."""
    layer = kind(4, **settings).to(dtype)
    for shape in SHAPES[kind]:
        layer.train()(torch.randn(shape).to(dtype))
    layer.eval()

    def found() -> list[Tensor]:
        results = []
        for shape in SHAPES[kind]:
            for chunk in (CHUNK, 8):
                monkeypatch.setattr(running_statistics, "CHUNK", chunk)
                x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
                with torch.no_grad():
                    results.append(layer(x))
                y = layer(x.requires_grad_())
                results += [y.detach(), *torch.autograd.grad(y.float().square().sum(), x)]
        return results

    found()  # fills the caches
    cached = found()
    monkeypatch.setattr(
        Cache, "get", lambda self, compute, sources, dtype, *_: compute(*sources, dtype)
    )
    for a, b in zip(cached, found(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("by_host", [True, False])
def test_a_change_of_eps_or_of_the_solver_is_noticed(by_host: bool, monkeypatch) -> None:
    if not by_host:
        as_on_a_gpu(monkeypatch)
    layer, x = trained(eps=1e-5), images(3)
    large = torch.cat([x] * (CHUNK // x.numel() + 1))
    layer(x), layer(large)
    layer.eps = 0.5
    for batch in (x, large):  # one path has a cache of the map, the other of the root
        torch.testing.assert_close(layer(batch), plain(layer, batch))
    layer.method = trained(solver="newton-schulz", steps=1).method
    assert (layer(x) - plain(layer, x)).norm() > 0.01 * plain(layer, x).norm()


@pytest.mark.parametrize("chunk", [8, CHUNK])
@pytest.mark.parametrize("cached", [True, False])
def test_transforms_work_on_inputs_of_any_size(chunk: int, cached: bool, monkeypatch) -> None:
    monkeypatch.setattr(running_statistics, "CHUNK", chunk)
    layer, x = trained(), images(3)
    if cached:
        layer(x)
    pair = torch.stack([x, x + 1])
    torch.testing.assert_close(vmap(layer)(pair), torch.stack([plain(layer, x) for x in pair]))

    def loss(x: Tensor) -> Tensor:
        return layer(x).pow(3).sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain(layer, leaf).pow(3).sum(), leaf)
    torch.testing.assert_close(grad(loss)(x), expected)
    torch.testing.assert_close(vmap(grad(loss))(pair)[0], expected)
    torch.testing.assert_close(jvp(loss, (x,), (pair[1],))[1], (expected * pair[1]).sum())
    torch.testing.assert_close(layer(x), plain(layer, x))  # no wrapped tensor was cached


def test_the_statistics_of_a_batch_are_refused_inside_of_a_transform() -> None:
    layer = Layer(4, track_running_stats=False)
    with pytest.raises(UserError, match=r"not inside of torch\.func or torch\.vmap: call eval\(\)"):
        grad(lambda x: layer(x).sum())(images(dtype=torch.float32))
