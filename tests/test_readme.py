"""What the README shows of runs is what they say: mended by ``make readme``."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import readme

from orthocond.report.claims import CLAIMS

matplotlib.use("agg")


def test_tables_are_what_their_commands_print() -> None:
    text = readme.README.read_text()
    assert readme.TABLE.search(text) and f"{len(CLAIMS)} claims" in text.replace("\n", " ")
    assert readme.with_tables(text) == text


def test_figures_are_drawn_from_the_numbers_that_the_runs_have(tmp_path: Path) -> None:
    drawn = {file.name: file for file in readme.draw(tmp_path)}
    assert {file.name for file in readme.FIGURES.iterdir()} == set(drawn)
    for name, file in drawn.items():  # an SVG's paths depend on matplotlib's version
        if file.suffix == ".csv":
            assert (readme.FIGURES / name).read_bytes() == file.read_bytes()
        else:
            assert f"{readme.FIGURES.relative_to(readme.ROOT)}/{name}" in readme.README.read_text()
