"""Scripts of the folder examples on a page."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


def test_an_example_prints_its_output_alone_and_stops_the_page_where_it_fails(
    kit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").mkdir()
    script = tmp_path / "examples/own.py"
    script.write_text(
        "import sys, warnings\nwarnings.warn('old')\nprint('bar', file=sys.stderr)\n"
        "if __name__ == '__main__':\n    print('loss 0.5')\n"
    )
    kit.run_example("own")
    assert capsys.readouterr() == ("loss 0.5\n\n", "")
    kit.run_example("own", "-X", "utf8")
    assert capsys.readouterr().out == "loss 0.5\n\n"
    script.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        kit.run_example("own")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        kit.run_example("own", "-X", "utf8")
