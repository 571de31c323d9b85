"""The public names: where they are, and that none of them hides a module."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest
import torch

import orthocond as oc

PACKAGES = [
    oc.__name__,
    *(m.name for m in pkgutil.walk_packages(oc.__path__, "orthocond.") if m.ispkg),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_hides_a_module(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{name}.{module.name}")
        assert isinstance(getattr(package, module.name), ModuleType), f"{name}.{module.name}"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_the_names_that_it_lists(name: str) -> None:
    package = importlib.import_module(name)
    listed = getattr(package, "__all__", [])
    assert len(set(listed)) == len(listed)
    for exported in listed:
        assert hasattr(package, exported)


def test_the_errors_and_the_version_are_public() -> None:
    assert issubclass(oc.UserError, ValueError)
    assert issubclass(oc.DecompositionError, ArithmeticError)
    assert oc.__version__ == version("orthocond")


def test_the_layers_and_the_probes_are_in_the_packages_too() -> None:
    from orthocond import layers, probes, spectral

    shared = [name for p in (layers, probes, spectral) for name in p.__all__ if name in oc.__all__]
    assert {"DecorrelatedBatchNorm2d", "recalibrate", "ConditioningProbe", "matrix_sqrt"} <= {
        *shared
    }
    for package in (layers, probes, spectral):
        for name in set(package.__all__) & set(oc.__all__):
            assert getattr(package, name) is getattr(oc, name)


CONV = torch.nn.Conv2d(3, 4, 1)
MODEL = torch.nn.Sequential(CONV)
P = torch.eye(2)
BAD: dict[str, list[Callable[[], Any]]] = {
    "ConditioningProbe": [
        lambda: oc.ConditioningProbe(MODEL, "1"),
        lambda: oc.ConditioningProbe(MODEL, "0", every=0),
        lambda: oc.ConditioningProbe(MODEL, "0", every=1.5),
        lambda: oc.ConditioningProbe(MODEL, "0", side="out"),
        lambda: oc.ConditioningProbe(MODEL, "0", channel_dim=0),
        lambda: oc.ConditioningProbe(MODEL, "0", structural_rank=torch.nn.ReLU()),
    ],
    "DecorrelatedBatchNorm1d": [lambda: oc.DecorrelatedBatchNorm1d(4)(torch.zeros(2, 3))],
    "DecorrelatedBatchNorm2d": [
        lambda: oc.DecorrelatedBatchNorm2d(0),
        lambda: oc.DecorrelatedBatchNorm2d(4, eps=-1.0),
        lambda: oc.DecorrelatedBatchNorm2d(4, groups=3),
        lambda: oc.DecorrelatedBatchNorm2d(4, solver="svd"),
        lambda: oc.DecorrelatedBatchNorm2d(4, backward="auto"),
        lambda: oc.DecorrelatedBatchNorm2d(4, running="variance"),
        lambda: oc.DecorrelatedBatchNorm2d.from_batch_norm(torch.nn.BatchNorm1d(4)),
        lambda: oc.DecorrelatedBatchNorm2d.from_batch_norm(torch.nn.BatchNorm2d(4), eps=1.0),
        lambda: oc.DecorrelatedBatchNorm2d(4)(torch.zeros(2, 3)),
    ],
    "DecorrelatedBatchNorm3d": [lambda: oc.DecorrelatedBatchNorm3d(4)(torch.zeros(2, 4, 3, 3))],
    "GlobalCovariancePool2d": [
        lambda: oc.GlobalCovariancePool2d(4, 2, solver="svd"),
        lambda: oc.GlobalCovariancePool2d(4, 2, backward="auto"),
        lambda: oc.GlobalCovariancePool2d(4, 2, backward="pade"),
        lambda: oc.GlobalCovariancePool2d(4, 2, normalization="root"),
        lambda: oc.GlobalCovariancePool2d(4, 2, power=2.0),
    ],
    "SkewOrthogonalConv2d": [
        lambda: oc.SkewOrthogonalConv2d(3, 4, 3, mode="strict"),
        lambda: oc.SkewOrthogonalConv2d(3, 4, 2),
    ],
    "conditioning": [
        lambda: oc.conditioning(torch.zeros(2, 3)),
        lambda: oc.conditioning(torch.eye(2).long()),
        lambda: oc.conditioning([1.0]),
        lambda: oc.conditioning(torch.eye(2), feature_dtype=torch.int8),
    ],
    "convert_batch_norm": [
        lambda: oc.convert_batch_norm(MODEL, ["1"]),
        lambda: oc.convert_batch_norm(MODEL, ["0"]),
        lambda: oc.convert_batch_norm(MODEL, "0"),
        lambda: oc.convert_batch_norm(MODEL, []),
        lambda: oc.convert_batch_norm(MODEL, lambda name, bn: True),
    ],
    "covariance_sqrt": [
        lambda: oc.covariance_sqrt(torch.zeros(3)),
        lambda: oc.covariance_sqrt(P, eps=-1.0),
        lambda: oc.covariance_sqrt(P, eps=float("nan")),
        lambda: oc.covariance_sqrt(P, dtype=torch.bfloat16),
    ],
    "fold": [lambda: oc.fold("model"), lambda: oc.fold(torch.nn.Conv2d(3, 4, 1, device="meta"))],
    "matrix_inv_sqrt": [
        lambda: oc.matrix_inv_sqrt(torch.zeros(2, 2)),
        lambda: oc.matrix_inv_sqrt(torch.zeros(2, 3)),
        lambda: oc.matrix_inv_sqrt(P, solver="newton-schulz", backward="pade"),
    ],
    "matrix_log": [
        lambda: oc.matrix_log(torch.zeros(2, 2)),
        lambda: oc.matrix_log(torch.zeros(2, 3)),
        lambda: oc.matrix_log(P, eps=-1.0),
    ],
    "matrix_power": [
        lambda: oc.matrix_power(torch.zeros(2, 2), -1.0),
        lambda: oc.matrix_power(-P, 0.5),
        lambda: oc.matrix_power(P, float("inf")),
    ],
    "matrix_sqrt": [
        lambda: oc.matrix_sqrt(torch.zeros(2, 3)),
        lambda: oc.matrix_sqrt(torch.zeros(2, 3), "newton-schulz"),
        lambda: oc.matrix_sqrt(torch.zeros(2)),
        lambda: oc.matrix_sqrt(torch.zeros(0, 0), "newton-schulz"),
        lambda: oc.matrix_sqrt(P, eps=-1.0),
        lambda: oc.matrix_sqrt(P, eps=float("inf")),
        lambda: oc.matrix_sqrt(P, solver="svd"),
        lambda: oc.matrix_sqrt(P, backward="auto"),
    ],
    "optimal_lr": [
        lambda: oc.optimal_lr(P, P, rule="best"),
        lambda: oc.optimal_lr(P, torch.zeros(2, 3)),
        lambda: oc.optimal_lr(torch.zeros(2), torch.zeros(2)),
    ],
    "polar_factor": [
        lambda: oc.polar_factor(torch.zeros(3)),
        lambda: oc.polar_factor(P, method="qr"),
    ],
    "recalibrate": [
        lambda: oc.recalibrate(MODEL, []),
        lambda: oc.recalibrate(MODEL, [], layers=["1"]),
        lambda: oc.recalibrate(MODEL, [], layers=[]),
    ],
    "structural_rank": [
        lambda: oc.structural_rank(torch.nn.ReLU(), samples=10),
        lambda: oc.structural_rank(CONV, samples=0),
        lambda: oc.structural_rank(CONV, samples=-3),
        lambda: oc.structural_rank(CONV, samples=2.0),
        lambda: oc.structural_rank(CONV, samples=True),
        lambda: oc.structural_rank(torch.nn.LazyConv2d(4, 1), samples=10),
    ],
    "treat": [
        lambda: oc.treat(MODEL, "1", "nog"),
        lambda: oc.treat(MODEL, "0", "nogg"),
        lambda: oc.treat(MODEL, "0", "nog+nog"),
        lambda: oc.treat(MODEL, "0", "nog", target="weights"),
        lambda: oc.treat(torch.nn.Sequential(torch.nn.ReLU()), "0", "nog"),
    ],
}
TAKES_NOTHING_BAD = {"Conditioning", "Treated", "UserError", "DecompositionError", "__version__"}
"""Records, errors, and what ``treat`` returns."""


def test_every_public_function_and_layer_has_a_bad_argument_below() -> None:
    assert set(BAD) | TAKES_NOTHING_BAD == set(oc.__all__)


@pytest.mark.parametrize(("name", "i"), [(name, i) for name in BAD for i in range(len(BAD[name]))])
def test_a_bad_argument_is_a_user_error_of_one_line(name: str, i: int) -> None:
    with pytest.raises(oc.UserError) as error:
        BAD[name][i]()
    assert str(error.value) and "\n" not in str(error.value)
