"""Every example runs: those of the docstrings, and the README's."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import orthocond as oc

MODULES = ["orthocond", *(m.name for m in pkgutil.walk_packages(oc.__path__, "orthocond."))]
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"oc": oc, "torch": torch})
    assert failed == 0  # doctest has printed where


@pytest.mark.parametrize("name", [name for name in oc.__all__ if name != "__version__"])
def test_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(oc, name)) or "")


@pytest.mark.parametrize(("page", "printed"), [("README.md", ""), ("book/guide.md", "eta_used=")])
def test_python_for_users_runs(page: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    torch.manual_seed(0)
    for block in blocks:
        exec(block, {})
    assert printed in capsys.readouterr().out
