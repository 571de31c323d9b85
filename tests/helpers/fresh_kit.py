"""The book's kit as a new process would import it: it remembers the runs that it has read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BOOK = Path(__file__).parents[2] / "book"


def fresh_kit(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the kit anew, for a repository in the folder ``root``.

    Args:
        root: folder of the repository; the files of the book are in ``root/files``.
        monkeypatch: pytest's fixture.
    """
    pytest.importorskip("IPython", reason="the book extra is not installed")
    monkeypatch.syspath_prepend(str(BOOK))
    for name in list(sys.modules):
        if name.partition(".")[0] in ("kit", "explorer"):
            monkeypatch.delitem(sys.modules, name)
    kit = importlib.import_module("kit")
    for module in (kit.runs, kit.elements, kit.study_elements, kit.example_scripts):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(kit.elements, "FILES", root / "files")
    return kit
