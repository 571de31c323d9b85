"""Probes and torch.compile: a record, a warning or an error, and never nothing."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import orthocond as oc
from orthocond.errors import UserError
from orthocond.layers.recalibration import unwrapped
from orthocond.probes.target import find_layer

BEFORE = "attach the probe before the first compiled forward"


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    return nn.Sequential(nn.Conv2d(3, 3, 1), body)


def images(i: int = 0) -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(i))


def rows(run: Callable[[Tensor], Tensor], probe: oc.ConditioningProbe, steps: int = 12) -> list:
    for i in range(steps):
        run(images(i))
    return [record.row() for record in probe.take()]


@contextmanager
def no_warning() -> Iterator[None]:
    """No warning of a probe; torch's tracer has some of its own."""
    with warnings.catch_warnings(record=True, action="always") as told:
        yield
    assert not [str(one.message) for one in told if BEFORE in str(one.message)]


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_probe_attached_before_records_what_it_records_without_compiling(side):
    plain, model = network(), network()
    expected = rows(plain, oc.ConditioningProbe(plain, "1.1", every=3, side=side))
    probe = oc.ConditioningProbe(model, "1.1", every=3, side=side)
    with no_warning():
        found = rows(compiled(model), probe)
        probe.close()
    assert found == expected and [row["step"] for row in found] == [0, 3, 6, 9]
    # One break of the graph, whatever the step: it is not compiled anew for each.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_closing_ends_the_recording_of_compiled_code_too():
    model = network()
    with oc.ConditioningProbe(model, "1.1", every=1) as probe:
        run = compiled(model)
        run(images())
    run(images())
    assert len(probe.records) == 1


COMPILED: dict[str, Callable[[nn.Sequential], tuple[nn.Module, str]]] = {}


def case(make: Callable[[nn.Sequential], tuple[nn.Module, str]]) -> None:
    COMPILED[make.__name__] = make


@case
def wrapper(model: nn.Sequential) -> tuple[nn.Module, str]:
    return compiled(model), "1.1"


@case
def wrapper_by_its_own_names(model: nn.Sequential) -> tuple[nn.Module, str]:
    return compiled(model), "_orig_mod.1.1"


@case
def in_place(model: nn.Sequential) -> tuple[nn.Module, str]:
    model.compile(backend="eager")
    return model, "1.1"


@case
def submodule_in_place(model: nn.Sequential) -> tuple[nn.Module, str]:
    model[1].compile(backend="eager")
    return model, "1.1"


@case
def submodule_replaced(model: nn.Sequential) -> tuple[nn.Module, str]:
    model[1] = compiled(model[1])
    return model, "1._orig_mod.1"


@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_a_probe_attached_afterwards_warns_once_and_resetting_makes_it_record(make):
    model, layer = make(network())
    model(images())
    with pytest.warns(UserWarning, match=BEFORE) as told:
        probe = oc.ConditioningProbe(model, layer, every=1)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert told[0].filename == __file__
    torch._dynamo.reset()
    assert len(rows(model, probe, 3)) == 3


def test_calls_of_the_uncompiled_module_are_recorded():
    model = network()
    run = compiled(model)
    run(images())
    with pytest.warns(UserWarning, match="run the original module"):
        probe = oc.ConditioningProbe(run, "1.1", every=1)
    assert len(rows(model, probe, 3)) == 3


def test_a_compiled_layer_is_hooked_from_outside():
    model = network()
    model[0] = compiled(model[0])
    model(images())
    with no_warning():
        probe = oc.ConditioningProbe(model, "0", every=1)
        found = rows(model, probe, 3)
        probe.close()
    assert len(found) == 3 and {row["rank"] for row in found} == {3}


def test_closing_a_probe_that_was_never_called_warns():
    model = network()
    run = compiled(model)  # of which the model itself does not know
    run(images())
    probe = oc.ConditioningProbe(model, "1.1", every=1)
    assert rows(run, probe) == []
    with pytest.warns(UserWarning, match=rf"no forward called the probe of layer '1\.1'.*{BEFORE}"):
        probe.close()
    with no_warning():
        probe.close()  # once is enough


def test_closing_does_not_warn_without_compiled_code_or_after_an_error():
    with no_warning():
        oc.ConditioningProbe(network(), "1.1").close()
        compiled(network())(images())
        with pytest.raises(KeyError), oc.ConditioningProbe(network(), "1.1"):
            raise KeyError


def test_a_graph_that_must_not_break_names_the_probe():
    model = network()
    oc.ConditioningProbe(model, "1.1", every=1)
    run = torch.compile(model, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="a ConditioningProbe records here, outside of the graph"):
        run(images())


def test_names_are_those_of_the_wrapper_or_of_what_it_wraps():
    model = network()
    run = compiled(model)
    assert unwrapped(run) is unwrapped(model) is model
    for name in ("1.1", "_orig_mod.1.1"):
        with pytest.warns(UserWarning):
            assert find_layer(run, name) is model[1][1]
    for name in ("", "_orig_mod", "1.2"):
        with pytest.raises(UserError, match=rf"unknown layer '{name}' of Sequential"):
            find_layer(run, name)


def test_a_projection_that_attention_never_calls_is_refused():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    refused = "layer 'self_attn.out_proj' is never called.*probe the output of 'self_attn', with"
    with pytest.raises(UserError, match=refused):
        oc.ConditioningProbe(model, "self_attn.out_proj")
    with oc.ConditioningProbe(model, "self_attn", side="output", channel_dim=-1) as probe:
        model(torch.randn(2, 5, 8))
    assert probe.records[0].median.dimension == 8


def test_a_probed_model_is_copied_and_saved_as_before():
    model = network()
    probe = oc.ConditioningProbe(model, "1.1", every=1)
    copied = copy.deepcopy(model)  # as by an average of weights; it has a probe of its own
    copied(images())
    assert probe.records == []
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    torch.load(file, weights_only=False)(images())
    model(images())
    assert len(probe.records) == 1


@pytest.mark.parametrize("wrap", [AveragedModel, nn.DataParallel])
def test_a_layer_of_a_wrapped_network_has_its_own_name(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    wrapped = wrap(network())
    for name in ("1.0", "module.1.0"):
        assert find_layer(wrapped, name) is wrapped.module[1][0]
    with oc.ConditioningProbe(wrapped, "1.0") as probe:
        wrapped(images())
    assert len(probe.records) == 1
