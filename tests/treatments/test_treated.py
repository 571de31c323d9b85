"""Errors of ``treat`` and ``bind``, and a second ``bind`` to another optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import in_forks
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization
from torch.optim import SGD
from torch.testing import assert_close
from toys import Toy, network

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments import TREATMENTS


@pytest.mark.parametrize("treatments", TREATMENTS)
def test_a_layer_without_a_weight_matrix_is_refused(treatments: str) -> None:
    with pytest.raises(UserError, match="unknown layer 'conv': allowed are 0, 1, 2, 3, 4"):
        oc.treat(network(), "conv", treatments)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"ol_weight must be 0 or more .*, got {weight}"):
            oc.treat(network(), "0", "ol", ol_weight=weight)
    with pytest.raises(UserError, match="unknown layer '': allowed are 0, 1, 2, 3, 4"):
        oc.treat(network(), "", treatments)
    with pytest.raises(
        UserError, match="layer '1' is a ReLU without a weight matrix: treat a conv"
    ):
        oc.treat(network(), "1", treatments)
    model = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(UserError, match="layer '0' is a BatchNorm2d without a weight matrix"):
        oc.treat(model, "0", treatments)
    model = network()
    model[0].weight.requires_grad_(False)
    with pytest.raises(UserError, match="the weight of layer '0' is frozen: there is nothing"):
        oc.treat(model, "0", treatments)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(3, 4), "ow needs a Conv2d, got a Linear: use ow-stiefel"),
        (nn.Conv2d(3, 4, (1, 3)), "ow needs the same kernel size, stride, padding and dilation in"),
        (nn.Conv2d(3, 4, 3, padding=(1, 0)), "ow needs the same kernel size, stride, padding and"),
        (nn.Conv2d(3, 4, 3, stride=(1, 2), padding=1), "ow needs the same kernel size, stride"),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), "convolution has stride 1, got 2"),
        (nn.Conv2d(3, 4, 3), "convolution has padding 1, got 0"),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), "layer '0' has 2 groups, so its weight is 2 ind"),
        (nn.Conv2d(3, 4, 3, padding=1, dilation=2), "convolution has dilation 1, got 2"),
        (nn.Conv2d(3, 4, 2), "needs an odd kernel, got 2"),
        (nn.Conv2d(3, 4, 3, padding="same"), "ow needs zero padding given as a number"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "ow needs zero padding given"),
    ],
)
def test_ow_refuses_what_a_skew_convolution_can_not_be(layer: nn.Module, words: str) -> None:
    model = nn.Sequential(layer)
    with pytest.raises(UserError, match=words):
        oc.treat(model, "0", "nog+ow")
    assert model[0] is layer


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(3, 4), "^ow-conv needs a Conv2d, got a Linear: use ow-stiefel$"),
        (nn.ConvTranspose2d(3, 4, 3), "^ow-conv needs a Conv2d, got a ConvTranspose2d: use"),
        (nn.Conv1d(3, 4, 3), "^ow-conv needs a Conv2d, got a Conv1d: use ow-stiefel$"),
        (nn.Conv2d(3, 4, (1, 3)), "^ow-conv needs a square kernel, got 1 x 3$"),
        (
            nn.Conv2d(3, 4, 3, stride=(1, 2)),
            r"^ow-conv needs stride 1, got \(1, 2\): its kernel is",
        ),
        (nn.Conv2d(3, 4, 3, dilation=2), r"^ow-conv needs dilation 1, got \(2, 2\): its kernel is"),
        (nn.Conv2d(4, 4, 3, groups=2), "^layer '0' has 2 groups, so its weight is 2 independent"),
    ],
)
def test_ow_conv_refuses_what_is_not_orthogonal_at_its_size(layer: nn.Module, words: str) -> None:
    model, state = nn.Sequential(layer), torch.get_rng_state()
    with pytest.raises(UserError, match=words) as error:
        oc.treat(model, "0", "ow-conv")
    assert model[0] is layer and "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("treatments", ["nog", "olr", "rescale+olr-exact"])
def test_an_optimizer_without_the_parameter_of_the_layer_is_refused(treatments: str) -> None:
    toy = Toy(treatments)
    with pytest.raises(UserError, match="does not hold the parameter of layer '0': add it with"):
        toy.treated.bind(SGD(toy.model[4].parameters(), lr=0.1))
    with pytest.raises(UserError, match=r"^bind takes a torch\.optim\.Optimizer, got a list: b"):
        toy.treated.bind(list(toy.model.parameters()))


ALREADY = (
    r"^the weight of layer '0' is parametrized already: {} would be a second "
    "parametrization, and a layer can have one$"
)


@pytest.mark.parametrize("first", ["sn", "ow-stiefel", "ow-conv"])
@pytest.mark.parametrize("second", ["sn", "nog+ow", "ow-stiefel", "ow-conv"])
def test_a_second_weight_treatment_is_refused_in_a_second_call_too(first: str, second: str) -> None:
    model = network()
    treated = oc.treat(model, "0", first)
    with pytest.raises(UserError, match=ALREADY.format(second.removeprefix("nog+"))):
        oc.treat(model, "0", second)
    assert model[0] is treated.layer
    oc.treat(model, "0", "nog+ol+olr")  # these do not change the weight, so both fit


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_of_two_parameters_is_refused(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)))
    both = " and ".join(name for name, _ in model[0].named_parameters() if name != "bias")
    with pytest.raises(UserError, match=f"is made of {both}: a treatment acts on one parameter$"):
        oc.treat(model, "0", "nog")


def test_a_parametrized_bias_is_no_part_of_the_weight() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    register_parametrization(model[0], "bias", nn.Tanh())
    treated = oc.treat(model, "0", "nog")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    model(torch.rand(2, 3, 8, 8)).square().sum().backward()
    before = model[0].weight.detach().clone()
    optimizer.step()
    moved = torch.linalg.svdvals((model[0].weight.detach() - before).flatten(1))
    assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-4, atol=1e-5)


def test_bind_moves_to_another_optimizer() -> None:
    toy = Toy("slow", partial(SGD, lr=0.1))
    toy.treated.bind(SGD(toy.model.parameters(), lr=0.1))
    old = toy.treated.parameter.detach().clone()
    toy.step()
    expected = old - 0.1 * toy.treated.parameter.grad
    torch.testing.assert_close(toy.treated.parameter.detach(), expected, rtol=0, atol=1e-15)
    assert toy.treated.last is None


SHARDED = (
    "the parameter of layer '0' is sharded, and one process can't compute the singular values of "
    "a part: treat layers that are whole on every process"
)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "weight_orig"),
        (lambda layer: prune.random_structured(layer, "weight", 0.5, dim=0), "weight_orig"),
        (nn.utils.parametrizations.weight_norm, "{0}original0 and {0}original1"),
        (nn.utils.parametrizations.spectral_norm, "{0}original"),
    ],
)
def test_a_weight_that_is_parametrized_later_is_named(
    change: Callable[[nn.Module], nn.Module], now: str
) -> None:
    toy = Toy("nog")
    change(toy.model[0])
    toy.loss().backward()
    now = now.format("parametrizations.weight.")
    line = f"^layer '0' has the parameter {now} in the place of weight: change the parametrization"
    for use in (toy.optimizer.step, toy.treated.penalty, lambda: toy.treated.bind(toy.optimizer)):
        with pytest.raises(UserError, match=line):
            use()
    toy.treated.remove()  # lets the layer be treated again, if its weight is one parameter
    toy.optimizer.step()
    assert toy.treated.treatments == ()


def test_a_parametrization_that_is_removed_later_is_named() -> None:
    model = network()
    first, second = oc.treat(model, "0", "sn"), oc.treat(model, "0", "nog")
    first.remove()
    with pytest.raises(UserError, match=r"the parameter weight in the place of parametrizations\."):
        second.bind(SGD(model.parameters(), lr=0.1))


def _refusal_of_a_shard(rank: int) -> str:
    model = network()
    treated = oc.treat(model, "0", "nog")
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(UserError) as caught:
        treated.bind(SGD(model.parameters(), lr=0.1))
    return str(caught.value)


def test_a_sharded_parameter_is_refused(tmp_path: Path) -> None:
    (message,) = in_forks(_refusal_of_a_shard, tmp_path, world=1)
    assert message == SHARDED


@pytest.mark.parametrize("piece", [torch.zeros(27), None], ids=["flat", "taken out"])
def test_a_flattened_parameter_is_refused(piece: Tensor | None) -> None:
    """Test both layouts of FSDP's first version, with and without use_orig_params."""
    model = network()
    treated = oc.treat(model, "0", "nog")
    model[0].weight = None if piece is None else nn.Parameter(piece)
    with pytest.raises(UserError, match=f"^{SHARDED}$"):
        treated.bind(SGD(model.parameters(), lr=0.1))
