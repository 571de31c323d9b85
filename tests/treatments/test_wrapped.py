"""Models that are wrapped before they are treated, for several processes or by torch.compile."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from forked import in_forks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import SGD
from toys import EACH, every, network

import orthocond as oc
from orthocond.errors import UserError


def _line(name: str, wrapper: str) -> str:
    return (
        f"layer {name!r} is inside {wrapper}, which knows the untreated layer, so the processes "
        "would train different weights: treat the model before it is wrapped"
    )


def _refused(model: nn.Module, name: str, treatments: str = "nog") -> str:
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(UserError) as caught:
        oc.treat(model, name, treatments)
    assert model.state_dict().keys() == state.keys() and torch.equal(torch.get_rng_state(), rng)
    return str(caught.value)


def _refusals(rank: int) -> dict[str, str]:
    class Named(DistributedDataParallel):
        """A subclass, as frameworks have them."""

    found = {t: _refused(DistributedDataParallel(network()), "module.0", t) for t in EACH}
    for treatment in ("sn", "ow", "ow-stiefel", "ow-conv"):
        wrapper = DistributedDataParallel(network())
        found[f"inner {treatment}"] = _refused(wrapper.module, "0", treatment)
        oc.treat(wrapper.module, "0", "nog+ol+olr")  # makes no parameter
    model = network()
    wrapper = DistributedDataParallel(model)
    wrapper.itself = [wrapper]  # a cycle, which only the garbage collector ends
    del wrapper
    oc.treat(model, "0", "ow")
    part = nn.ModuleDict({"generator": DistributedDataParallel(network()), "other": network()})
    found["part"] = _refused(part, "generator.module.0")
    oc.treat(part, "other.0", "nog+ow")
    found["subclass"] = _refused(Named(network()), "module.0")
    found["alias"] = _refused(nn.ModuleList([inner := network(), Named(inner)]), "0.0")
    mesh = init_device_mesh("cpu", (2,))
    found["fsdp"] = _refused(fully_shard(network(), mesh=mesh), "0")
    outer = fully_shard(nn.Sequential(network()), mesh=mesh)
    found["inner fsdp"] = _refused(outer[0], "0", "sn")
    return found


def test_a_model_inside_ddp_or_fsdp_is_refused(tmp_path: Path) -> None:
    found, _ = in_forks(_refusals, tmp_path)
    ddp = "DistributedDataParallel"
    assert found.pop("part") == _line("generator.module.0", ddp)
    assert found.pop("alias") == _line("0.0", ddp)
    assert found.pop("fsdp") == found.pop("inner fsdp") == _line("0", "FSDPModule")
    for name in [name for name in found if name.startswith("inner ")]:
        assert found.pop(name) == _line("0", ddp)
    assert set(found.values()) == {_line("module.0", ddp)}


def test_a_model_inside_data_parallel_is_refused() -> None:
    assert _refused(DataParallel(network()), "module.0", "sn") == _line("module.0", "DataParallel")


@every
def test_a_compiled_model_trains_as_the_eager_one(treatments: str) -> None:
    torch._dynamo.reset()
    eager, inner = network(), network()
    compiled = torch.compile(inner, backend="eager")
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    compiled(x)  # compiled for the untreated layer
    for model, name in ((eager, "0"), (compiled, "_orig_mod.0")):
        torch.manual_seed(1)
        treated = oc.treat(model, name, treatments)
        optimizer = SGD(model.parameters(), lr=0.1)
        treated.bind(optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            (model(x).square().mean() + treated.penalty()).backward()
            optimizer.step()
    torch.testing.assert_close(inner.state_dict(), eager.state_dict(), rtol=0, atol=1e-14)
