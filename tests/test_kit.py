"""What a page of the book shows where runs are missing, are there, or were altered."""

from __future__ import annotations

import importlib.util
from contextlib import chdir
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from study_factory import write_study

from orthocond.artifacts.run_writer import CorruptRun
from orthocond.report.figures import recalibration
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.study import Study

pytest.importorskip("IPython", reason="the book extra is not installed")


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The book's kit, in a repository without runs."""
    path = Path(__file__).parents[1] / "book/kit.py"
    spec = importlib.util.spec_from_file_location("kit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FILES", tmp_path / "files")
    return module


def test_without_runs_a_page_has_the_command_that_makes_them(kit: ModuleType) -> None:
    page = kit.study_figure("fig2").data
    assert "No runs yet" in page
    assert "orthocond train" in page and "--method ow" in page and "--out runs" in page


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


def test_sentences_show_their_numbers_or_the_command_for_missing_runs(
    kit: ModuleType, tmp_path: Path
) -> None:
    def rank(runs: Study) -> str:
        return f"rank {kit.overview.of_task(runs, 'dbn').frame.at['svd+ow', ('', 'rank')]:.0f}"

    write_study(tmp_path / "runs/mine", ("svd",))
    assert "--method ow" in kit.study_text("dbn", rank).data
    write_study(tmp_path / "runs/mine", ("svd+ow",))
    assert kit.study_text("dbn", rank).data == "rank 64"
    with pytest.raises(KeyError, match="ranks"):
        kit.study_text("dbn", lambda runs: {}["ranks"])


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


def test_runs_are_read_again_when_one_of_their_files_is_written(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd",))
    with chdir(tmp_path):
        first = kit.all_studies()
        assert kit.all_studies() is first
        write_study(tmp_path / "runs/mine", ("bn",))
        assert len(kit.all_studies().runs) > len(first.runs)


def test_a_table_with_many_columns_has_the_margin_of_the_page(kit: ModuleType) -> None:
    frame = pd.DataFrame([range(kit.COLUMNS + 1)])
    assert 'class="wide full-width"' in kit.show_table("many", frame, "Many.").data
    assert 'class="wide"' in kit.show_table("few", frame.iloc[:, 1:], "Few.", "torch 2").data


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


def test_hours_have_two_digits_on_the_page_and_all_in_their_csv(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = pd.DataFrame({"preset": ["a"], "a run (h)": [1.2345], "all (h)": [1234.5]})
    monkeypatch.setattr(kit.preset_hours, "build", lambda _: Numbers(hours, Provenance("Hours")))
    page = kit.study_hours().data
    assert "<td>1.2</td>" in page and "<td>1,234</td>" in page
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "files/hours.csv"), hours)
