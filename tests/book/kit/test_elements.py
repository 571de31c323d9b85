"""Figures and tables of a page: captions, files, and what is shown where runs are missing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from study_factory import write_study

from orthocond.artifacts.manifests import CorruptRun


def test_without_runs_a_page_has_the_command_that_makes_them(kit: ModuleType) -> None:
    page = kit.study_figure("fig2").data
    assert "No runs yet" in page
    assert "orthocond train" in page and "--method ow" in page and "--out runs" in page


def test_a_table_with_many_columns_has_the_margin_of_the_page(kit: ModuleType) -> None:
    frame = pd.DataFrame([range(kit.elements.COLUMNS + 1)])
    assert 'class="wide full-width"' in kit.show_table("many", frame, "Many.").data
    assert 'class="wide"' in kit.show_table("few", frame.iloc[:, 1:], "Few.", "torch 2").data


def test_a_number_stays_on_one_line_with_its_spread_or_its_interval(kit: ModuleType) -> None:
    table = "<tr><td>95.4 [93.6, 97.0]</td><td>29.5 ± 0.2</td><td>not run here</td></tr>"
    shown = kit.elements.box(table)
    assert "95.4 [93.6,&nbsp;97.0]" in shown and "29.5&nbsp;±&nbsp;0.2" in shown
    assert "not run here" in shown


def test_an_altered_run_stops_the_page_with_its_name(kit: ModuleType, tmp_path: Path) -> None:
    write_study(tmp_path / "runs/mine")
    table = tmp_path / "runs/mine/dbn-cifar10-jpeg-small-svd-s1/conditioning.csv"
    table.write_bytes(table.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(CorruptRun, match="dbn-cifar10-jpeg-small-svd-s1"):
        kit.study_figure("fig2")


def test_a_table_of_a_page_has_rounded_numbers_and_its_csv_all_digits(
    kit: ModuleType, tmp_path: Path
) -> None:
    table = pd.DataFrame({"case": ["a", "b"], "images/s": [99513.8, None], "n": [50_000, 2]})
    page = kit.show_table("speed", table, "Speed.").data
    assert "<td>99,514</td>" in page and "<td>50,000</td>" in page and "nan" not in page.lower()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "files/speed.csv"), table)
