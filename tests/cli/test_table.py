from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from study_factory import write_study
from typer.testing import CliRunner

from orthocond.errors import UserError
from orthocond_cli.table import table

app = typer.Typer()
app.command()(table)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs") / "study", ("svd", "svd+nog"), seeds=2)


def test_table_prints_markdown(runs: Path) -> None:
    text = run("tab2", "--runs", runs)
    assert "| SVD + NOG " in text and "19.99 ± 0.16" in text


def test_a_study_need_not_have_a_name_in_utf_8(tmp_path: Path) -> None:
    try:
        study = write_study(tmp_path / os.fsdecode(b"caf\xe9"), ("svd", "svd+nog"), seeds=1)
    except UserError:
        pytest.skip("this file system has UTF-8 names only")
    (file,) = run("overview", "--runs", study, "--out", tmp_path / "out").split()
    assert r"caf\udce9: cifar10-jpeg" in Path(file).read_text()


@pytest.mark.parametrize(("format", "suffix"), [("md", "md"), ("csv", "csv"), ("latex", "tex")])
def test_table_writes_files(format: str, suffix: str, runs: Path, tmp_path: Path) -> None:
    files = run("all", "--runs", runs, "--format", format, "--out", tmp_path).split()
    names = ["overview", "differences", "tab1", "tab2", "tab3", "tab4"]
    assert [Path(f).name for f in files][:6] == [f"{name}.{suffix}" for name in names]
    assert all(Path(f).read_text() for f in files)


def test_table_as_json_is_numbers(runs: Path) -> None:
    told = json.loads(run("tab2", "--runs", runs, "--json"))
    row = told["tables"]["tab2"]["rows"][0]
    assert row["method"] == "svd" and row["here: cifar10-jpeg: n"] == 2


def test_table_of_some_methods(runs: Path) -> None:
    rows = json.loads(run("tab2", "--runs", runs, "--method", "nog", "--json"))
    assert [row["method"] for row in rows["tables"]["tab2"]["rows"]] == ["svd+nog"]


def test_all_tables_of_a_method_leave_out_those_without_its_row(runs: Path) -> None:
    with pytest.raises(UserError, match="unknown row 'bn': allowed are svd, "):
        run("all", "--runs", runs, "--method", "bn", "--method", "svd")
    told = json.loads(run("all", "--runs", runs, "--method", "ow", "--json"))
    assert [row["method"] for row in told["tables"]["tab1"]["rows"]] == ["svd+ow"]
    assert "unknown row 'svd+ow': allowed are svd, svd+nog" in told["skipped"]["overview"]


def test_a_folder_with_both_tasks_has_an_overview_of_each(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "bn"), seeds=2)
    write_study(tmp_path, ("svd", "gap"), "gcp", seeds=2, data="tiny")
    text = run("overview", "differences", "--runs", tmp_path)
    for title in ("Overview of", "Differences in error of"):
        assert f"{title} decorrelated BN on " in text
        assert f"{title} global covariance pooling on " in text
    files = run("overview", "--runs", tmp_path, "--out", tmp_path / "out").split()
    assert [Path(file).name for file in files] == ["overview.md", "overview-gcp.md"]
    told = json.loads(run("overview", "--runs", tmp_path, "--method", "gap", "--json"))
    assert list(told["tables"]) == ["overview-gcp"] and "'gap'" in told["skipped"]["overview"]
    told = json.loads(run("overview", "--runs", tmp_path, "--data", "tiny", "--json"))
    assert [row["method"] for row in told["tables"]["overview"]["rows"]] == ["svd", "gap"]
    with pytest.raises(UserError, match="unknown row 'ns'"):
        run("overview", "--runs", tmp_path, "--method", "ns")


def test_the_findings_of_a_method_are_its_columns(runs: Path) -> None:
    where = ("findings", "--runs", runs, "--json")
    (every,) = json.loads(run(*where))["tables"]["findings"]["rows"]
    (own,) = json.loads(run(*where, "--method", "nog"))["tables"]["findings"]["rows"]
    assert own.keys() < every.keys() and "gap" in " ".join(own)
    assert {key for key in own if "mean" in key} == {key for key in every if "NOG mean" in key}
    assert own == {key: every[key] for key in own}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["overview", "--method", "nig"], "unknown method 'nig'.*did you mean 'nog'"),
        (["overview", "--method", "ow"], r"unknown row 'svd\+ow': allowed are svd, svd\+nog"),
        (
            ["tab22"],
            "unknown table 'tab22': allowed are overview.*tab1.*did you mean 'tab2'",
        ),
        (["tab1", "--format", "xls"], "unknown format 'xls': allowed are md, csv, latex, html"),
        (["findings", "--method", "bn"], "unknown column 'bn': allowed are svd"),
        (["regimes", "--method", "nog"], "has one row per study and none per method: leave out"),
        (["tab5"], "no runs of task 'gcp'.*: orthocond train "),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: list[str], message: str, runs: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        run(*arguments, "--runs", runs)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_help_shows_an_example() -> None:
    assert "Examples: orthocond table overview" in " ".join(run("--help").split())


def test_a_study_is_shown_if_it_is_named(tmp_path: Path) -> None:
    write_study(tmp_path / "all", ("svd", "svd+nog", "bn"))
    write_study(tmp_path / "few", ("svd",), seeds=1, epochs=45, data={"train_images": 4992})
    result = CliRunner().invoke(app, ["overview", "--runs", str(tmp_path)])
    assert "few" not in result.stdout and "few; --study shows one" in result.stderr
    for shows_all in ("findings", "regimes"):
        result = CliRunner().invoke(app, [shows_all, "--runs", str(tmp_path)])
        assert result.exit_code == 0 and "--study" not in result.stderr
    text = run("overview", "tab4", "--runs", tmp_path, "--study", "few")
    assert "Overview of decorrelated BN on few (cifar10-jpeg)" in text
    assert "here: few (cifar10-jpeg): error" in text and "few: SVD ends with " in text
    with pytest.raises(UserError, match="unknown study 'fw': allowed are all, few"):
        run("tab4", "--runs", tmp_path, "--study", "fw")
