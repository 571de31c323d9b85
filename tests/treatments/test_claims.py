"""A second treatment of a layer, and a second bind: nothing acts twice."""

from __future__ import annotations

import copy
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from toys import Toy, network

import orthocond as oc
from orthocond.errors import UserError


@pytest.mark.parametrize(
    ("first", "second"),
    [("nog", "olr"), ("olr", "nog"), ("slow", "slow"), ("nog", "polargrad"), ("ol", "ol")]
    + [("nog+ol", name) for name in ("sn", "ow", "ow-stiefel", "ow-conv")],
)
@pytest.mark.parametrize("bound", [True, False])
def test_a_second_call_that_would_act_twice_is_refused(
    first: str, second: str, bound: bool
) -> None:
    model = network()
    treated = oc.treat(model, "0", first)
    if bound:
        treated.bind(SGD(model.parameters(), lr=0.1))
    layer, state = model[0], torch.get_rng_state()
    with pytest.raises(
        UserError,
        match=rf"^layer '0' is treated already, by {re.escape(first)} of layer '0': name all "
        r"treatments in one call, as in 'nog\+olr', or call remove\(\) of the first handle before$",
    ):
        oc.treat(model, "0", second)
    assert model[0] is layer and torch.equal(torch.get_rng_state(), state)
    oc.treat(copy.deepcopy(model), "0", second)  # a copy of the model has no handle
    oc.treat(model, "4", "nog")
    treated.remove()
    oc.treat(model, "0", second)


def test_a_bound_treatment_counts_if_its_handle_was_dropped() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    oc.treat(model, "0", "slow")  # treats nothing: it was not bound
    oc.treat(model, "0", "slow").bind(optimizer)
    with pytest.raises(UserError, match="layer '0' is treated already, by slow of layer '0'"):
        oc.treat(model, "0", "nog")


def test_layers_that_share_a_weight_have_one_handle_at_the_step() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    first = oc.treat(model, "0", "nog")
    with pytest.raises(UserError, match="layer '1' is treated already, by nog of layer '0'"):
        oc.treat(model, "1", "olr")
    first.remove()
    oc.treat(model, "1", "olr")


def test_bind_again_to_one_optimizer_treats_once() -> None:
    toy = Toy("slow", partial(SGD, lr=0.1))
    toy.treated.bind(toy.optimizer)
    old = toy.treated.parameter.detach().clone()
    toy.step()
    expected = old - 0.01 * toy.treated.parameter.grad
    torch.testing.assert_close(toy.treated.parameter.detach(), expected, rtol=0, atol=1e-15)
