from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from study_factory import write_study
from typer.testing import CliRunner

from orthocond.errors import UserError
from orthocond_cli.plot import plot

app = typer.Typer()
app.command()(plot)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs") / "study", ("svd", "svd+nog"), seeds=1)


def test_plot_prints_the_files_that_it_wrote(runs: Path, tmp_path: Path) -> None:
    files = run("fig3", "--runs", runs, "--out", tmp_path, "--format", "png").split()
    assert [Path(f).name for f in files] == ["fig3.png", "fig3.csv", "fig3-dark.png"]
    assert all(Path(f).stat().st_size for f in files)


def test_plot_as_json_says_what_each_figure_shows_and_what_was_skipped(
    runs: Path, tmp_path: Path
) -> None:
    told = json.loads(run("all", "--runs", runs, "--out", tmp_path, "--format", "png", "--json"))
    assert [figure["name"] for figure in told["figures"]][:4] == ["fig1", "fig2", "fig3", "fig4"]
    assert "Condition number" in told["figures"][0]["alt"]
    assert "orthocond train" in told["skipped"]["fig5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig0"], "unknown figure 'fig0': allowed are fig1"),
        (["fig2", "--format", "jpg"], "unknown format 'jpg': allowed are png, svg, pdf"),
        (["fig2", "--data", "cifar"], "unknown data set 'cifar': allowed are cifar10-jpeg"),
        (["fig5"], "no runs of task 'gcp'.*: orthocond train "),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: list[str], message: str, runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        run(*arguments, "--runs", runs, "--out", tmp_path)
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_help_shows_an_example() -> None:
    assert "Example: orthocond plot fig2" in " ".join(run("--help").split())


def test_a_figure_of_a_named_study_says_which(tmp_path: Path) -> None:
    write_study(tmp_path / "all", ("svd", "svd+nog", "bn"), seeds=1)
    write_study(tmp_path / "few", ("svd",), seeds=1, epochs=45, data={"train_images": 4992})
    where = ("--runs", tmp_path, "--out", tmp_path, "--format", "svg", "--json")
    (told,) = json.loads(run("fig2", *where, "--study", "few"))["figures"]
    assert told["note"].startswith("few: ") and "on few (cifar10-jpeg)" in told["alt"]
    assert told["remarks"][0].startswith("few: SVD ends with ")
    assert json.loads(run("fig2", *where))["figures"][0]["note"].startswith("all: ")
