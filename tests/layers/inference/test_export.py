"""torch.export, torch.jit.trace and ONNX of networks in evaluation, against the eager network."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from forms import OfSequences, OfVectors, OfVolumes
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import orthocond as oc
from orthocond.layers.covariance_pool import CovarianceRoot

MISSING = [n for n in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(n)]
NETWORKS = ["whitening", "folded, with pooling"]
every = pytest.mark.parametrize("name", NETWORKS)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters, about their own code


def images(batch: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, 7, 7, generator=generator) + 1


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "whitening":
        layers = [
            oc.DecorrelatedBatchNorm2d(4, groups=2),
            OfVectors(4),
            OfSequences(4),
            OfVolumes(4),
        ]
    else:
        pool = oc.GlobalCovariancePool2d(4, 3, "minimax", eps=0.1, condition=1e2)
        layers = [oc.DecorrelatedBatchNorm2d(4), nn.ReLU(), pool]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *layers)
    for _ in range(20):
        model(images())
    return oc.fold(model) if name.startswith("folded") else model.eval()


@pytest.fixture(scope="module")
def exported() -> dict[str, tuple[nn.Module, ExportedProgram]]:
    """Each network with its exported program, whose batch size is free."""
    found = {}
    for name in NETWORKS:
        model = network(name)
        before = {n: repr(vars(m)) for n, m in model.named_modules()}
        program = torch.export.export(model, (images(),), dynamic_shapes=({0: Dim("b", min=2)},))
        assert {n: repr(vars(m)) for n, m in model.named_modules()} == before
        found[name] = model, program
    return found


@every
def test_an_exported_network_is_the_eager_one(name: str, exported) -> None:
    model, program = exported[name]
    for batch in (6, 3):
        y = program.module()(images(batch))
        torch.testing.assert_close(y, model(images(batch)), rtol=1e-5, atol=1e-5)


def test_an_exported_network_follows_its_state(exported) -> None:
    model, program = copy.deepcopy(exported["whitening"])  # they share their tensors with others
    module = program.module()
    model[1].running_covariance.mul_(2)
    module.load_state_dict(model.state_dict())
    torch.testing.assert_close(module(images()), model(images()), rtol=1e-5, atol=1e-5)
    module.load_state_dict({**model.state_dict(), "1.running_covariance": -torch.ones(2, 2, 2)})
    assert module(images()).isnan().all()  # it has no root


@every
def test_a_traced_network_is_the_eager_one(name: str) -> None:
    model = network(name)
    entries = [vars(m["_roots"])["_entry"] for m in map(vars, model.modules()) if "_roots" in m]
    # The check of torch.jit.trace would run the eager network, which fills the cache.
    traced = torch.jit.trace(model, (images(),), check_trace=False)
    assert entries == [vars(m._roots)["_entry"] for m in model.modules() if hasattr(m, "_roots")]
    for batch in (6, 3):
        y = traced(images(batch))
        torch.testing.assert_close(y, model(images(batch)), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@every
def test_an_onnx_network_is_the_eager_one(name: str, exported, tmp_path: Path) -> None:
    import onnxruntime

    model, program = exported[name]
    with warnings.catch_warnings(action="ignore"):
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None
    converted.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (x,) = session.get_inputs()
    for batch in (6, 3):
        (y,) = session.run(None, {x.name: images(batch).numpy()})
        expected = model(images(batch)).detach()
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-5, atol=1e-5)


NO_EIGH = "an eigendecomposition can't be exported to ONNX or by torch.jit.trace: use solver 'minim"


def test_an_eigendecomposition_is_exported_for_torch_and_not_for_onnx() -> None:
    root = CovarianceRoot(normalization="power", power=0.3)
    program = torch.export.export(root, (images(),))
    torch.testing.assert_close(program.module()(images()), root(images()))
    if not MISSING:
        with pytest.raises(torch.onnx.OnnxExporterError, match=NO_EIGH):
            torch.onnx.export(program, dynamo=True, verbose=False)


@pytest.mark.parametrize(
    "settings", [{}, {"solver": "eigh"}, {"normalization": "log", "eps": 0.1}], ids=str
)
def test_an_eigendecomposition_is_not_traced(settings: dict[str, Any]) -> None:
    with pytest.raises(oc.UserError, match=NO_EIGH):
        torch.jit.trace(oc.GlobalCovariancePool2d(3, 4, **settings).eval(), (images(),))
