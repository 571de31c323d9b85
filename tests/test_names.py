"""The public names: where they are, and that none of them hides a module."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import version
from types import ModuleType

import pytest

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
