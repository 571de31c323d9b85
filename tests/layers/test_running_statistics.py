"""Moving averages of the covariance or of its root: what they are, and how they are exchanged."""

from __future__ import annotations

import copy

import pytest
import torch
from forms import WHITENING, shaped
from torch import Tensor, nn

import orthocond as oc
from orthocond.errors import DecompositionError, UserError

BOTH = pytest.mark.parametrize("running", ["covariance", "root"])


@pytest.fixture(params=WHITENING)
def DBN(request: pytest.FixtureRequest) -> type:
    """A whitening layer of each dimension that takes images."""
    return WHITENING[request.param]


def batches(count: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, dtype=dtype, generator=generator)
    x = torch.randn(count, 6, 4, 3, 3, dtype=dtype, generator=generator)
    return list(torch.einsum("ij,nbjhw->nbihw", mix, x) + 1)


def root_of(x: Tensor, eps: float) -> Tensor:
    """(P + eps I)^(-1/2) of the batch, by the plain definition."""
    P = x.transpose(0, 1).flatten(1).cov(correction=0)
    l, U = torch.linalg.eigh(P + eps * torch.eye(len(P), dtype=P.dtype))
    return (U / l.sqrt()) @ U.mT


@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_running_root_is_the_average_of_the_roots(DBN, momentum) -> None:
    layer = DBN(4, eps=1e-3, momentum=momentum, running="root").double()
    expected = torch.eye(4, dtype=torch.float64)
    for i, x in enumerate(batches(), 1):
        layer(x)
        expected = expected.lerp(root_of(x, 1e-3), momentum or 1 / i)
    torch.testing.assert_close(layer.running_root[0], expected, rtol=1e-10, atol=1e-12)
    assert layer.running_covariance is None and layer.running_matrix is layer.running_root
    x = batches()[0]
    centred = x - layer.running_mean.view(4, 1, 1)
    whitened = torch.einsum("ij,bjhw->bihw", expected, centred)
    torch.testing.assert_close(layer.eval()(x), whitened, rtol=1e-10, atol=1e-10)


def test_training_does_not_depend_on_it(DBN) -> None:
    torch.manual_seed(0)
    one, other = DBN(4, groups=2), DBN(4, groups=2, running="root")
    for x in batches(dtype=torch.float32):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        ya, yb = one(a), other(b)
        ya.square().sum().backward(), yb.square().sum().backward()
        assert torch.equal(ya, yb) and torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("groups", [1, 2])
@BOTH
def test_a_state_dict_of_one_is_loaded_into_the_other(DBN, running, groups) -> None:
    other = {"root": "covariance", "covariance": "root"}[running]
    layer = DBN(4, groups=groups, running=running).double()
    for x in batches():
        layer(x)
    ours = DBN(4, groups=groups, running=other).double()
    state = layer.state_dict()
    ours.load_state_dict(state)
    assert f"running_{running}" in state and f"running_{running}" not in ours.state_dict()
    x = batches()[0]
    torch.testing.assert_close(ours.eval()(x), layer.eval()(x), rtol=1e-9, atol=1e-9)
    back = DBN(4, groups=groups, running=running).double()
    back.load_state_dict(ours.state_dict())
    torch.testing.assert_close(back.running_matrix, layer.running_matrix, rtol=1e-9, atol=1e-9)


def test_stored_state_dicts_have_the_same_names_as_before(DBN) -> None:
    names = ["weight", "bias", "running_mean", "running_covariance", "num_batches_tracked"]
    assert list(DBN(4).state_dict()) == names
    assert list(DBN(4, track_running_stats=False, running="root").state_dict()) == names[:2]
    with pytest.raises(RuntimeError, match=r"Missing key.*running_root"):
        state = DBN(4).state_dict()
        del state["running_covariance"]
        DBN(4, running="root").load_state_dict(state)


@BOTH
def test_recalibration_sets_it(DBN, running) -> None:
    images = torch.cat(batches())
    model = nn.Sequential(DBN(4, eps=1e-3, running=running).double())
    oc.recalibrate(model, shaped(model[0], images).split(5))
    n = images[:, 0].numel()
    P = images.transpose(0, 1).flatten(1).cov()
    expected = P
    if running == "root":
        expected = root_of(images * (n / (n - 1)) ** 0.5, 1e-3)
    torch.testing.assert_close(model[0].running_matrix[0], expected, rtol=1e-9, atol=1e-9)


def test_a_population_without_a_root_leaves_it_as_it_was(DBN) -> None:
    model = nn.Sequential(DBN(3, eps=0, running="root"))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DecompositionError, match=r"no inverse square root.*pass eps > 0"):
        oc.recalibrate(model, [shaped(model[0], torch.ones(4, 3, 2, 2))])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failed_batch_changes_nothing(DBN) -> None:
    layer = DBN(4, running="root")
    layer(torch.full((2, 4, 3, 3), torch.nan))
    assert torch.equal(layer.running_root[0], torch.eye(4)) and layer.num_batches_tracked == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_running_root_is_at_least_in_float32(DBN, half) -> None:
    for layer in (DBN(4, running="root", dtype=half), DBN(4, running="root").to(half)):
        assert layer.running_root.dtype == torch.float32 and layer.weight.dtype == half


@BOTH
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("assign", [True, False])
def test_a_state_in_half_precision_is_loaded_as_float32(DBN, running, half, assign) -> None:
    """Buffers that torch's own loading would assign; as after torch.device("meta")."""
    layer = DBN(4, running=running)
    for x in batches(dtype=torch.float32):
        layer(x)
    state = {k: v.to(half) if v.is_floating_point() else v for k, v in layer.state_dict().items()}
    ours = DBN(4, running=running, device="meta" if assign else None)
    ours.load_state_dict(copy.deepcopy(state), assign=assign)
    for name in ("running_mean", f"running_{running}"):
        assert ours.get_buffer(name).dtype == torch.float32
        assert torch.equal(ours.get_buffer(name), state[name].float())
    assert ours.weight.dtype == (half if assign else torch.float32)
    assert state["running_mean"].dtype == half


def test_averaged_roots_go_stale_sooner(DBN) -> None:
    """The eigenvectors rotate from batch to batch, and the averages lag behind them."""
    l = torch.tensor([100.0, 1e-3], dtype=torch.float64)
    kept: dict[str, Tensor] = {}
    for running in ("covariance", "root"):
        layer = DBN(2, affine=False, running=running).double()
        z = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)  # white
        for step in range(60):
            angle = torch.tensor(step * torch.pi / 180 / 4)
            rotation = torch.stack(
                [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
            )
            x = (z * l.sqrt()) @ rotation.double().mT
            layer(x.view(4, 2, 1, 1))
        kept[running] = layer.eval()(x.view(4, 2, 1, 1)).flatten(1).mT.cov(correction=0)
    largest = {k: torch.linalg.eigvalsh(P)[-1].item() for k, P in kept.items()}
    assert largest["root"] > 2 * largest["covariance"] > 2


def test_an_unknown_statistic_is_named(DBN) -> None:
    with pytest.raises(UserError, match=r"unknown running 'mean': allowed are covariance, root"):
        DBN(4, running="mean")


@BOTH
def test_torch_may_swap_the_parameters_after_an_evaluation(running: str) -> None:
    """``torch.__future__`` has this mode; torch swaps no tensor that has a weak reference."""
    layer = oc.DecorrelatedBatchNorm2d(3, running=running).eval()
    x = torch.randn(2, 3, 4, 4)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with torch.no_grad():
            expected = layer(x)
            layer.double()
            torch.testing.assert_close(layer(x.double()).float(), expected)
            layer.load_state_dict({name: t.clone() for name, t in layer.state_dict().items()})
            torch.testing.assert_close(layer(x.double()).float(), expected)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
