"""Tests of the layers that ``treat`` accepts, and of the matrix that it reads their weight as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments import TREATMENTS

RIGHT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 7, 7)),
    "conv2d, oblong": (lambda: nn.Conv2d(3, 4, (1, 3), stride=2), (2, 3, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, padding=1), (2, 2, 5, 5, 5)),
    "conv transpose 1d": (lambda: nn.ConvTranspose1d(3, 4, 3), (2, 3, 9)),
    "conv transpose 2d": (lambda: nn.ConvTranspose2d(5, 4, 3, stride=2), (2, 5, 4, 4)),
    "conv transpose 2d, wide": (lambda: nn.ConvTranspose2d(2, 12, 2), (2, 2, 4, 4)),
    "conv transpose 3d": (lambda: nn.ConvTranspose3d(2, 4, 2), (2, 2, 4, 4, 4)),
}
kinds = pytest.mark.parametrize("kind", RIGHT)


def matrix(kind: str, weight: Tensor) -> np.ndarray:
    """Return the matrix (out, in k k), entry by entry from the meaning of the axes."""
    w = weight.detach().numpy()
    if "transpose" not in kind:
        return w.reshape(len(w), -1)
    inputs, outputs = w.shape[:2]
    return np.stack([np.concatenate([w[i, o].ravel() for i in range(inputs)])
                     for o in range(outputs)])  # fmt: skip


def polar(M: np.ndarray) -> np.ndarray:
    U, _, Vh = np.linalg.svd(M, full_matrices=False)
    return U @ Vh


def build(kind: str, treatments: str, **options: Any) -> tuple[nn.Sequential, oc.Treated, Tensor]:
    layer, shape = RIGHT[kind]
    torch.manual_seed(0)
    model = nn.Sequential(layer()).double()
    x = torch.randn(*shape, dtype=torch.float64)
    return model, oc.treat(model, "0", treatments, **options), x


def step(model: nn.Sequential, treated: oc.Treated, x: Tensor) -> tuple[Tensor, Tensor]:
    """Take a step of rate 0.1, and return the weight and its gradient before the step."""
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    (model(x).sin().sum() + treated.penalty()).backward()
    before = treated.parameter.detach().clone(), treated.parameter.grad.clone()
    optimizer.step()
    return before


@kinds
@pytest.mark.parametrize("treatment", ["nog", "polargrad", "rescale"])
def test_a_gradient_treatment_acts_on_the_weight_as_a_matrix(kind: str, treatment: str) -> None:
    model, treated, x = build(kind, treatment)
    W, G = step(model, treated, x)
    M = matrix(kind, G)
    expected = {
        "nog": polar(M),
        "polargrad": np.linalg.norm(M, "nuc") * polar(M),
        "rescale": np.sqrt(min(M.shape)) / np.linalg.norm(M) * M,
    }[treatment]
    got = matrix(kind, treated.parameter.grad)
    assert np.allclose(got, expected, rtol=0, atol=1e-10)
    moved = matrix(kind, (W - treated.parameter) / 0.1)
    assert np.allclose(moved, expected, rtol=0, atol=1e-10)
    kappa = np.linalg.cond(M)
    assert treated.last.gradient_kappa_before == pytest.approx(kappa, rel=1e-9)


@kinds
@pytest.mark.parametrize("rule", ["olr", "olr-newton", "olr-exact", "slow"])
@pytest.mark.parametrize("target", ["parameter", "weight"])
def test_a_step_treatment_acts_on_the_weight_as_a_matrix(kind: str, rule: str, target: str) -> None:
    model, treated, x = build(kind, rule, target=target)
    W, G = step(model, treated, x)
    A, B = (torch.from_numpy(matrix(kind, t)) for t in (W, G))
    names = {"olr": "paper", "olr-newton": "newton", "olr-exact": "exact"}
    upper = 0.1 if rule == "olr-exact" else None
    eta = 0.01 if rule == "slow" else oc.optimal_lr(A, B, names[rule], upper=upper).item()
    assert treated.last.eta == pytest.approx(eta, nan_ok=True)
    rate = eta if 0 <= eta < 0.1 and (eta > 0 or rule == "olr-exact") else 0.1
    torch.testing.assert_close(treated.parameter.detach(), W - rate * G)


@kinds
def test_the_step_of_muon_is_computed_from_the_weight_as_a_matrix(kind: str) -> None:
    model, treated, x = build(kind, "muon")
    W, G = step(model, treated, x)
    M = matrix(kind, G)
    expected = -0.1 * np.sqrt(max(1, len(M) / M[0].size)) * polar(M)
    moved = matrix(kind, treated.parameter - W)
    assert np.allclose(moved, expected, rtol=0, atol=1e-10)


@kinds
def test_the_orthogonal_loss_is_computed_from_the_weight_as_a_matrix(kind: str) -> None:
    model, treated, _ = build(kind, "ol", ol_weight=1.0)
    M = matrix(kind, model[0].weight)
    expected = np.linalg.norm(M @ M.T - np.eye(len(M)))
    assert treated.penalty().item() == pytest.approx(expected, rel=1e-12)
    assert np.array_equal(treated.weight().numpy(), M)
    treated.penalty().backward()
    assert model[0].weight.grad.isfinite().all()


@kinds
@pytest.mark.parametrize("treatment", ["sn", "ow-stiefel"])
@pytest.mark.parametrize("others", ["", "nog+ol+olr"])
def test_a_weight_treatment_acts_on_the_weight_as_a_matrix(
    kind: str, treatment: str, others: str
) -> None:
    model, treated, x = build(kind, f"{treatment}+{others}".strip("+"), target="weight")
    step(model, treated, x)
    M = matrix(kind, model.eval()[0].weight)
    assert np.array_equal(treated.weight().numpy(), M)
    s = np.linalg.svd(M, compute_uv=False)
    assert np.allclose(s if treatment == "ow-stiefel" else s[0], 1, rtol=0, atol=1e-12)
    if treatment == "sn":
        W = matrix(kind, treated.parameter)
        assert np.allclose(M, W / np.linalg.norm(W, 2), rtol=0, atol=1e-12)
    weight, y = model[0].weight.detach().clone(), model(x).detach()
    layer = treated.remove()
    assert type(layer) is type(RIGHT[kind][0]()) and torch.equal(layer.weight.detach(), weight)
    assert torch.equal(model(x).detach(), y)


@kinds
def test_ow_takes_a_square_conv2d_only(kind: str) -> None:
    if kind == "conv2d":
        build(kind, "ow")
        return
    with pytest.raises(UserError, match=r"^ow needs (a Conv2d, got a|the same kernel size)"):
        build(kind, "ow")


@kinds
def test_sn_equals_spectral_norm_of_torch_in_training(kind: str) -> None:
    layer, _ = RIGHT[kind]
    torch.manual_seed(0)
    plain = nn.Sequential(layer())
    ours = nn.Sequential(layer())
    ours.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    nn.utils.parametrizations.spectral_norm(plain[0])
    torch.manual_seed(1)
    oc.treat(ours, "0", "sn")
    for _ in range(3):
        assert torch.equal(ours[0].weight, plain[0].weight)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in ours.state_dict().items())


class OfTwo(nn.Module):
    """A layer of a user, whose axes are not known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))


def quantised() -> nn.Module:
    layer = nn.Linear(3, 4)
    del layer.weight
    layer.weight = nn.Parameter(torch.zeros(4, 3, dtype=torch.int8), requires_grad=False)
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), "has 2 groups, so its weight is 2 independ"),
    "depthwise": (lambda: nn.Conv1d(4, 4, 3, groups=4), "has 4 groups, so its weight is 4 indepe"),
    "grouped transpose": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), "has 2 groups"),
    "lazy linear": (lambda: nn.LazyLinear(4), "is a LazyLinear without a shape yet: run one batch"),
    "lazy conv": (lambda: nn.LazyConv2d(4, 3), "LazyConv2d without a shape yet: run one batch fir"),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), "a Bilinear, whose weight is not known to be one m"),
    "layer norm": (lambda: nn.LayerNorm((3, 4)), "a LayerNorm, whose weight is not known to be"),
    "own": (
        OfTwo,
        "is a OfTwo, whose weight is not known to be one matrix: allowed are Linear, Conv1d",
    ),
    "bag": (lambda: nn.EmbeddingBag(5, 3), "a EmbeddingBag, whose weight is not known"),
    "sparse": (
        lambda: nn.Embedding(5, 3, sparse=True),
        "Embedding with sparse gradients or a max_",
    ),
    "max_norm": (lambda: nn.Embedding(5, 3, max_norm=1.0), "with sparse gradients or a max_norm"),
    "complex": (lambda: nn.Linear(3, 4, dtype=torch.complex64), r"is torch\.complex64: treatments"),
    "quantised": (quantised, r"is torch\.int8: treatments need a weight of a real floating dtype"),
    "batch norm": (lambda: nn.BatchNorm2d(3), "is a BatchNorm2d without a weight matrix: treat a"),
    "container": (lambda: nn.Sequential(nn.Linear(3, 4)), "a Sequential without a weight matrix"),
    "skew": (lambda: oc.SkewOrthogonalConv2d(3, 4, 3), "treated already: give all treatments in o"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("treatments", [*TREATMENTS, "nog+olr", ""])
def test_a_weight_that_is_not_one_matrix_is_refused_by_all(kind: str, treatments: str) -> None:
    made, words = REFUSED[kind]
    layer = made()
    model = nn.Sequential(layer)
    with pytest.raises(UserError, match=f"layer '0' .*{words}"):
        oc.treat(model, "0", treatments)
    assert model[0] is layer


def test_a_lazy_layer_is_taken_after_its_first_batch() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    model(torch.zeros(2, 3))
    assert oc.treat(model, "0", "nog").parameter.shape == (4, 3)


@pytest.mark.parametrize("treatment", ["sn", "ow", "ow-stiefel"])
def test_an_embeddings_weight_is_not_parametrized(treatment: str) -> None:
    model = nn.Sequential(nn.Embedding(5, 3))
    with pytest.raises(UserError, match="layer '0' is an Embedding, which looks up rows and mult"):
        oc.treat(model, "0", treatment)


def test_nog_of_an_embedding_leaves_the_rows_of_absent_tokens() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3, padding_idx=0)).double()
    treated = oc.treat(model, "0", "nog")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    weight = model[0].weight.detach().clone()
    model(torch.tensor([[1, 2, 0], [4, 2, 5]])).sin().sum().backward()
    expected = polar(model[0].weight.grad.numpy())
    optimizer.step()
    moved = ((weight - model[0].weight) / 0.1).detach().numpy()
    assert np.allclose(moved, expected, rtol=0, atol=1e-10)
    assert np.allclose(moved[[0, 3]], 0, atol=1e-12)


class Subclass(nn.Conv2d):
    """A subclass like the standardised convolutions of timm."""


@pytest.mark.parametrize("treatment", ["nog+ol+olr", "ow-stiefel"])
def test_a_subclass_of_a_supported_layer_is_treated(treatment: str) -> None:
    """Compare a step with that of the same layer without a treatment."""
    torch.manual_seed(0)
    plain, model = nn.Conv2d(3, 4, 3, padding=1).double(), Subclass(3, 4, 3, padding=1).double()
    model.load_state_dict(plain.state_dict())
    treated = oc.treat(network := nn.Sequential(model), "0", treatment)
    assert treated.treatments
    x, weights = torch.randn(2, 3, 5, 5).double(), []
    for layer, own in ((nn.Sequential(plain), None), (network, treated)):
        optimizer = SGD(layer.parameters(), lr=0.1)
        if own is not None:
            own.bind(optimizer)
        loss = layer(x).square().mean() + (0 if own is None else own.penalty())
        loss.backward()
        optimizer.step()
        weights.append(layer[0].weight.detach())
    assert not torch.allclose(*weights)
