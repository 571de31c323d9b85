"""One handle for several layers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from toys import batch, every, network

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments import Treated, TreatedLayers

BUILD = partial(SGD, lr=0.05, momentum=0.9)


def model_of_two() -> nn.Sequential:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    return nn.Sequential(stem, network()).double()


NAMES = ["0.0", "1.0"]


def steps(model: nn.Module, treated: list[Treated] | TreatedLayers, closed: bool) -> list[float]:
    images, labels = batch()
    optimizer = BUILD(model.parameters())
    handles = [treated] if isinstance(treated, TreatedLayers) else treated
    for handle in handles:
        handle.bind(optimizer)

    def closure() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss = loss + sum(handle.penalty() for handle in handles)
        loss.backward()
        return loss.item()

    losses = []
    for _ in range(3):
        losses.append(closure() if not closed else optimizer.step(closure))
        if not closed:
            optimizer.step()
    return losses


@every
@pytest.mark.parametrize("closed", [False, True], ids=["plain", "closure"])
def test_one_handle_for_several_layers_equals_one_handle_each(
    treatments: str, closed: bool
) -> None:
    one, many = model_of_two(), model_of_two()
    torch.manual_seed(1)
    treated = oc.treat(one, NAMES, treatments, ol_weight=0.05)
    torch.manual_seed(1)
    each = [oc.treat(many, name, treatments, ol_weight=0.05) for name in NAMES]
    assert type(treated) is TreatedLayers and all(type(t) is Treated for t in each)
    assert steps(one, treated, closed) == steps(many, each, closed)
    for (name, a), (_, b) in zip(one.state_dict().items(), many.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert treated.treatments == each[0].treatments
    assert list(treated) == NAMES and len(treated) == 2 and "0.0" in treated and "0" not in treated
    assert treated.last.keys() == {*NAMES}
    for name, other in zip(NAMES, each, strict=True):
        assert treated[name].layer is one.get_submodule(name)
        assert torch.equal(treated[name].weight(), other.weight())
        mine, theirs = treated.last[name], other.last
        assert mine is treated[name].last
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.eta == pytest.approx(theirs.eta, nan_ok=True)
    layers = treated.remove()
    assert layers.keys() == {*NAMES} and treated.treatments == () and treated.penalty() == 0
    assert all(type(layer) is nn.Conv2d for layer in layers.values())
    assert all(one.get_submodule(name) is layer for name, layer in layers.items())


def test_layer_names_may_be_any_iterable() -> None:
    for names in (tuple(NAMES), dict.fromkeys(NAMES), (name for name in NAMES)):
        assert list(oc.treat(model_of_two(), names, ["nog", "olr"])) == NAMES
    assert list(oc.treat(model_of_two(), ["1.0"], "nog")) == ["1.0"]


def test_each_layer_may_have_an_optimizer_of_its_own() -> None:
    model = model_of_two()
    treated = oc.treat(model, NAMES, "nog")
    optimizers = [BUILD([treated[name].parameter]) for name in NAMES]
    with pytest.raises(UserError, match=r"does not hold the parameter of layer '1\.0'"):
        treated.bind(optimizers[0])
    assert not optimizers[0]._optimizer_step_pre_hooks  # no layer was hooked
    for name, optimizer in zip(NAMES, optimizers, strict=True):
        treated[name].bind(optimizer)
    model(batch()[0]).sum().backward()
    optimizers[1].step()
    assert treated.last["0.0"] is None
    assert treated.last["1.0"].gradient_kappa_after == pytest.approx(1)


def test_a_layer_can_be_removed_by_itself() -> None:
    model = model_of_two()
    treated = oc.treat(model, NAMES, "nog+ow")
    treated["0.0"].remove()
    assert type(model[0][0]) is nn.Conv2d and type(model[1][0]) is oc.SkewOrthogonalConv2d
    treated.remove()
    assert type(model[1][0]) is nn.Conv2d


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "^no layer is listed: name at least one"),
        (["0.0", "0.0"], r"^layer '0\.0' is listed twice$"),
        (["0.0", "0.9"], r"^unknown layer '0\.9'"),
        (["0.0", ""], "^unknown layer ''"),
        (["0.0", "0"], r"one of the layers '0\.0' and '0' is inside the other"),
        (["0", "0.0"], r"one of the layers '0' and '0\.0' is inside the other"),
        (["1.0", "0.1"], r"layer '0\.1' is a ReLU without a weight matrix"),
        (["1.0", "1.4"], "ow needs a Conv2d, got a Linear"),
        (["1.0", "wide"], "convolution has padding 1, got 0"),
        (["0.0", "again"], r"^layers '0\.0' and 'again' are the same module: list one"),
        (["0.0", "tied"], r"^layers '0\.0' and 'tied' share their weight: list one"),
        (["0.0", 1], "^expected the name of a layer, got 1$"),
        (7, "^expected the name of a layer or a list of names, got 7$"),
    ],
)
def test_one_bad_name_changes_nothing(names: list[str], words: str) -> None:
    model = model_of_two()
    model.add_module("wide", nn.Conv2d(3, 3, 3))
    model.add_module("again", model[0][0])
    tied = nn.Conv2d(3, 6, 3, padding=1)
    tied.weight = model[0][0].weight
    model.add_module("tied", tied)
    modules, random = list(model.modules()), torch.get_rng_state()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(UserError, match=words):
        oc.treat(model, names, "nog+ow")
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    with pytest.raises(UserError, match="unknown layer"):
        oc.treat(model_of_two(), NAMES, "nog")["0"]


@pytest.mark.parametrize("treatments", [None, 3, ["nog", 1]])
def test_treatments_that_are_no_names_are_refused(treatments: object) -> None:
    with pytest.raises(UserError, match=r"^expected a sum of treatments such as 'nog.ow', or"):
        oc.treat(nn.Sequential(nn.Linear(3, 2)), "0", treatments)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"^expected a torch.nn.Module to treat, got list$"):
        oc.treat([nn.Linear(3, 2)], "0", "nog")
    with pytest.raises(UserError, match=r"^the Linear has no layers inside: to treat the module"):
        oc.treat(nn.Linear(3, 2), "", "nog")
