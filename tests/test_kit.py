"""What a page of the book shows where runs are missing, are there, or were altered."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_factory import metrics as study_metrics
from study_factory import write_run, write_study

from orthocond.artifacts.run_writer import CorruptRun
from orthocond.report.figures import recalibration
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.results import results_csv
from orthocond.report.study import Study
from orthocond.report.tables import overview

pytest.importorskip("IPython", reason="the book extra is not installed")


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The book's kit, in a repository without runs."""
    path = Path(__file__).parents[1] / "book/kit.py"
    monkeypatch.syspath_prepend(str(path.parent))
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
    for cached in (kit._read, kit._without_demo, kit.of_committed_runs):
        cached.cache_clear()
    assert kit.study_text("dbn", rank).data == "rank 64"


def errors(runs: Study) -> str:
    """A sentence that holds where NOG has an error of less than 34 %."""
    error = overview.of_task(runs, "dbn").frame[("", "error mean")]
    assert error["svd+nog"] < 34, "NOG is too bad"
    return f"The error of NOG is {error['svd+nog']:.1f} % in {len(runs.runs)} runs."


def commit(folder: Path) -> None:
    """List the runs of a folder as the committed ones."""
    (folder / "results.csv").write_bytes(results_csv(Study(folder).runs))


def test_a_false_sentence_about_the_committed_runs_stops_the_build(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    write_study(tmp_path / "runs/demo", ("svd",))  # make demo changes nothing
    assert "% in 4 runs." in kit.study_text("dbn", errors).data

    def wrong(runs: Study) -> str:
        assert not runs.runs
        return "There are no runs."

    with pytest.raises(AssertionError):
        kit.study_text("dbn", wrong)
    with pytest.raises(KeyError, match="svd\\+ow"):
        kit.study_text("dbn", lambda runs: runs.select("dbn").runs["svd+ow"])


def test_a_sentence_that_does_not_hold_for_other_runs_has_the_numbers_of_both(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    known = kit.study_text("dbn", errors).data
    monkeypatch.setattr("study_factory.metrics", worse)
    write_study(tmp_path / "worse", ("svd", "svd+nog"), seeds=1)
    monkeypatch.setenv("ORTHOCOND_RUNS", str(tmp_path / "worse"))
    kit.of_committed_runs.cache_clear()
    page = kit.study_text("dbn", errors).data
    assert "Written about the committed runs; yours differ" in page
    error = known.split()[5]
    assert f"The error of NOG is {error} (yours: 90.0) % in 4 (yours: 2) runs." in page

    def holds(runs: Study) -> str:
        assert runs.runs
        return f"{len(runs.runs)} runs"

    assert kit.study_text("dbn", holds).data == "2 runs"

    def first_epochs(runs: Study) -> str:
        return f"{runs.runs[0].metrics['eval_top1'].tolist()[len(runs.runs)]:.0f} %"

    assert "IndexError" not in kit.study_text("dbn", first_epochs).data


def test_a_seed_that_was_added_to_the_committed_runs_makes_them_others(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    monkeypatch.setattr("study_factory.metrics", worse)
    write_run(tmp_path / "runs/mine", "dbn", "svd+nog", 2)
    page = kit.study_text("dbn", errors).data
    assert "(yours: " in page and "in 4 (yours: 5) runs" in page


def test_without_some_committed_runs_only_the_readers_numbers_are_shown(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study_factory.metrics", worse)
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/mine/dbn-cifar10-jpeg-small-svd-s1")
    page = kit.study_text("dbn", errors).data
    assert "The committed runs are not all in `runs/`" in page
    assert "is 90.0 % in 3 runs" in page and "(yours:" not in page


@pytest.mark.parametrize(
    ("missing", "commands"),
    [
        ("svd+ow", ["--method ow --seeds 0-1 --out"]),
        ("svd+ow - svd", ["--method ow --seeds 0-1 --out"]),
        ("svd (11×11 stem)", ["--set stem_kernel=11 --method svd --seeds 0-1 --out"]),
        (
            "gap - svd",
            ["--preset gcp-cpu --data folder:PATH/tiny-imagenet-100 --method gap --method svd"],
        ),
    ],
)
def test_a_sentence_names_the_commands_for_the_methods_that_it_lacks(
    kit: ModuleType, tmp_path: Path, missing: str, commands: list[str]
) -> None:
    write_study(tmp_path / "runs/mine", ("svd",))

    def lacking(runs: Study) -> str:
        return {"svd": ""}[missing]

    page = kit.study_text("dbn", lacking).data
    assert "No runs yet" in page and all(command in page for command in commands)
    assert page.count("orthocond train") == len(commands)


def test_a_study_that_is_missing_by_name_has_the_command_of_its_preset(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd",))

    def of_released(_: Study) -> str:
        return kit.study("as-released-cpu").select("dbn").note

    page = kit.study_text("dbn", of_released).data
    assert "--preset as-released-cpu --data folder:PATH/cifar10-jpeg --out" in page


def test_runs_on_held_out_images_have_the_commands_of_the_text(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(Path(__file__).parents[1] / "runs/README.md", tmp_path / "runs")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("ORTHOCOND_RUNS", "other")
    assert kit.study_choices("dbn").data.count("--out other/settings/") == 2
    assert "--preset gcp-cpu" in kit.study_choices("gcp").data


def worse(task: str, method: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Metrics of runs that learned nothing."""
    rows = study_metrics(task, method, rng)
    return [row | {"eval_top1": 10.0, "recalibrated_top1": 10.0} for row in rows]


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
    written = Numbers(hours, Provenance("Hours"))
    monkeypatch.setattr("orthocond.report.tables.preset_hours.build", lambda _: written)
    page = kit.study_hours().data
    assert "<td>1.2</td>" in page and "<td>1,234</td>" in page
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "files/hours.csv"), hours)
