"""Figures and tables of the paper from the runs of the book."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from study_factory import write_study

from orthocond.report.figures import recalibration
from orthocond.report.provenance import Numbers, Provenance


def test_a_figure_has_its_provenance_and_its_files(kit: ModuleType, tmp_path: Path) -> None:
    write_study(tmp_path / "runs/mine")
    page = kit.study_figure("fig2").data
    assert "<figcaption>Figure 2: " in page
    shown, fold = page.split("<details")[0], page.split("<details")[1]
    assert "commit" not in shown and "config" not in shown
    for part in ("mine: cifar10-jpeg, small", "seeds 0-1", "commit 0123456", "config "):
        assert part in fold
    for suffix in (".svg", ".pdf", ".csv", "-dark.svg"):
        assert f"files/fig2{suffix}" in page
        assert (tmp_path / f"files/fig2{suffix}").stat().st_size > 0


def test_a_further_figure_has_its_own_caption_and_files(kit: ModuleType, tmp_path: Path) -> None:
    write_study(tmp_path / "runs/mine")
    page = kit.study_figure(recalibration.FIGURE).data
    assert f"<figcaption>{recalibration.FIGURE.caption}" in page
    assert (tmp_path / f"files/{recalibration.FIGURE.name}.csv").stat().st_size > 0


def test_differences_have_intervals_where_seeds_allow_and_else_say_so(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    write_study(tmp_path / "runs/mine", ("ns",), seeds=1)
    rows = [row.split("</tr>")[0] for row in kit.study_differences("dbn").data.split("<tr>")]
    nog, ow, ns = (
        next(row for row in rows if f"<th>{name} against SVD" in row)
        for name in ("SVD + NOG", "SVD + OW", "Newton-Schulz")
    )
    assert nog.count("[") == 1
    assert "not run here" in ow and "nan" not in ow
    assert "<td>1</td>" in ns and "[" not in ns


def test_hours_have_two_digits_on_the_page_and_all_in_their_csv(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = pd.DataFrame({"preset": ["a"], "a run (h)": [1.2345], "all (h)": [1234.5]})
    written = Numbers(hours, Provenance("Hours"))
    monkeypatch.setattr("orthocond.report.tables.preset_hours.build", lambda _: written)
    page = kit.study_hours().data
    assert "<td>1.2</td>" in page and "<td>1,234</td>" in page
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "files/hours.csv"), hours)
