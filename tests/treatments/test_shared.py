"""Modules that a model uses twice, and weights that two modules hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from toys import EACH, every

import orthocond as oc
from orthocond.errors import UserError


class Twice(nn.Module):
    """A model with one convolution under two names, and inside a block with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), self.stem)
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.block(self.stem(x)))


class Tied(nn.Module):
    """A model whose decoder shares the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.decoder = nn.Linear(4, 6, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.embedding(tokens)))


@every
@pytest.mark.parametrize("name", ["stem", "block.1", "again.1"])
def test_a_module_is_treated_at_all_its_names(treatments: str, name: str) -> None:
    torch.manual_seed(0)
    model = Twice().double()
    plain = model.stem
    treated = oc.treat(model, name, treatments)
    optimizer = SGD(model.parameters(), lr=0.01)
    treated.bind(optimizer)
    assert model.stem is model.block[1] is model.again[1] is treated.layer
    assert len({id(p) for p in model.parameters() if p.requires_grad}) == 2
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    (model(x).square().mean() + treated.penalty()).backward()
    optimizer.step()
    expected = model.eval()(x)
    layer = treated.remove()
    assert model.stem is model.block[1] is model.again[1] is layer and type(layer) is type(plain)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@every
def test_remove_finds_the_layer_where_it_is_now(treatments: str) -> None:
    """A module in front of it, and one around it, change its name."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
    treated = oc.treat(model, "0", treatments)
    first, relu = nn.Identity(), model[1]
    model.insert(0, first)
    model[1] = nn.Sequential(model[1])
    layer = treated.remove()
    assert [*model.modules()][1:] == [first, model[1], layer, relu]


def test_remove_leaves_what_took_the_place_of_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    treated = oc.treat(model, "0", "nog+ow")
    other, layer = nn.Conv2d(3, 3, 1), model[0]
    model[0] = other
    with pytest.raises(UserError, match="does not have the layer '0' any more that was treated"):
        treated.remove()
    assert model[0] is other and treated.treatments == ("nog", "ow")
    model[0] = layer
    assert treated.remove() is model[0]


def test_a_compiled_layer_is_replaced_together_with_its_wrapper() -> None:
    model = nn.Sequential(torch.compile(nn.Conv2d(3, 3, 3, padding=1), backend="eager"))
    treated = oc.treat(model, "0._orig_mod", "ow")
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(model.eval()(x), treated.layer(x))
    model[0] = torch.compile(model[0], backend="eager")
    y = model(x)
    assert treated.remove() is model[0]
    torch.testing.assert_close(model(x), y)


TOKENS = torch.arange(24).view(4, 6) % 6


@pytest.mark.parametrize("name", ["decoder", "embedding"])
def test_a_tied_weight_has_the_sum_of_its_gradients_treated(name: str) -> None:
    torch.manual_seed(0)
    model = Tied().double()
    treated = oc.treat(model, name, "nog+ol+olr")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    (model(TOKENS).square().sum() + treated.penalty()).backward()
    G = model.decoder.weight.grad.clone()
    assert (G.norm(dim=1) > 0).all()
    W = model.decoder.weight.detach().clone()
    optimizer.step()
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    torch.testing.assert_close(model.decoder.weight.grad, U @ Vh, rtol=0, atol=1e-12)
    assert model.decoder.weight is model.embedding.weight is treated.parameter
    eta = oc.optimal_lr(W, U @ Vh).item()
    rate = eta if 0 < eta < 0.1 else 0.1
    assert treated.last.eta == pytest.approx(eta)
    torch.testing.assert_close(treated.parameter.detach(), W - rate * U @ Vh)


def test_the_loss_of_an_embedding_is_of_its_map_from_one_hot_tokens() -> None:
    model = Tied().double()
    W = model.decoder.weight.detach()
    for name, matrix in (("embedding", W.mT), ("decoder", W)):
        treated = oc.treat(model, name, "ol", ol_weight=1.0)
        expected = torch.linalg.matrix_norm(matrix @ matrix.mT - torch.eye(len(matrix)).double())
        assert treated.penalty().item() == pytest.approx(expected.item())
        assert torch.equal(treated.weight(), matrix)


@pytest.mark.parametrize("treatment", ["sn", "ow-stiefel", "ow", "nog+sn"])
@pytest.mark.parametrize(("name", "other"), [("decoder", "embedding"), ("embedding", "decoder")])
def test_a_tied_weight_is_not_parametrized(treatment: str, name: str, other: str) -> None:
    model = Tied()
    weight = model.decoder.weight
    with pytest.raises(
        UserError, match=f"^a parameter of layer '{name}' is '{other}.weight', too: .* untie them"
    ):
        oc.treat(model, name, treatment)
    assert model.decoder.weight is model.embedding.weight is weight and weight.requires_grad


@pytest.mark.parametrize("treatment", ["sn", "ow-stiefel", "ow"])
def test_two_convolutions_of_one_weight_or_bias_are_refused(treatment: str) -> None:
    for shared in ("weight", "bias"):
        model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))
        setattr(model[1], shared, getattr(model[0], shared))
        with pytest.raises(UserError, match=f"layer '0' is '1.{shared}', too: {treatment} would"):
            oc.treat(model, "0", treatment)


def test_a_weight_that_is_computed_elsewhere_is_refused() -> None:
    layer = nn.Linear(3, 4)
    made = layer.weight * 2
    del layer.weight
    layer.weight = made
    for treatment in EACH:
        with pytest.raises(UserError, match="the weight of layer '0' is computed elsewhere"):
            oc.treat(nn.Sequential(layer), "0", treatment)


def test_torchs_older_spectral_norm_keeps_one_parameter_and_takes_no_second() -> None:
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 4)))
    assert oc.treat(model, "0", "nog").parameter is model[0].weight_orig
    for treatment in ("sn", "ow-stiefel"):
        with pytest.raises(UserError, match=f"is parametrized already: {treatment} would be"):
            oc.treat(model, "0", treatment)
