"""The book's kit, in a repository without runs."""

from pathlib import Path
from types import ModuleType

import pytest
from fresh_kit import fresh_kit


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The kit in an empty folder."""
    return fresh_kit(tmp_path, monkeypatch)
