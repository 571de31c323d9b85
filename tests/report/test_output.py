from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from study_factory import COMMIT

from orthocond.errors import UserError
from orthocond.report.commands import MissingRuns
from orthocond.report.output import make_all, write_figure, write_table
from orthocond.report.registry import FIGURES, TABLES
from orthocond.report.study import Study


@pytest.fixture(scope="module")
def files(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    result = write_figure(study, FIGURES["fig2"], tmp_path_factory.mktemp("figures"))
    return {Path(file).name: Path(file) for file in result["files"]}


def test_a_figure_has_light_and_dark_files_and_its_data(files: dict[str, Path]) -> None:
    light = ["fig2.png", "fig2.svg", "fig2.pdf", "fig2.csv"]
    assert list(files) == [*light, "fig2-dark.png", "fig2-dark.svg"]
    with Image.open(files["fig2.png"]) as image, Image.open(files["fig2-dark.png"]) as dark:
        assert image.size == dark.size and image.width > 900
        assert sum(image.getpixel((1, 1))[:3]) > 3 * 250
        assert sum(dark.getpixel((1, 1))[:3]) < 3 * 30
    data = pd.read_csv(files["fig2.csv"])
    assert {"method", "step", "kappa", "kappa_support", "rank", "n"} <= set(data.columns)


@pytest.mark.parametrize("name", ["fig2.png", "fig2.svg", "fig2.pdf"])
def test_a_file_names_its_runs_commits_and_configurations(
    name: str, files: dict[str, Path], study: Study
) -> None:
    if name.endswith("png"):
        with Image.open(files[name]) as image:
            text = image.info["Description"]
    else:
        text = files[name].read_bytes().decode("latin-1")
        # matplotlib breaks and escapes a PDF's strings as UTF-16 only where they are not ASCII
        text = re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    run = study.select("dbn", ["svd"]).runs["svd"][0]
    for part in (run.name, COMMIT, run.config["hash"]):
        assert part in text


def test_equal_runs_give_equal_bytes(files: dict[str, Path], studies: Path, tmp_path: Path) -> None:
    again = write_figure(Study(studies), FIGURES["fig2"], tmp_path)
    for file in again["files"]:
        assert Path(file).read_bytes() == files[Path(file).name].read_bytes(), file


def test_figures_without_runs_are_skipped_only_if_not_strict(studies: Path, tmp_path: Path) -> None:
    study = Study(studies / "dbn-study")

    def draw(name: str) -> dict[str, Any]:
        return write_figure(study, FIGURES[name], tmp_path, ["png"])

    done, skipped = make_all(["fig2", "fig5"], draw, strict=False)
    assert list(done) == ["fig2"]
    assert "orthocond train" in skipped["fig5"]
    with pytest.raises(MissingRuns):
        make_all(["fig5"], draw, strict=False)
    with pytest.raises(MissingRuns):
        make_all(["tab1", "tab5"], lambda name: TABLES[name](study), strict=True)


def test_a_table_is_returned_as_text_or_written_to_a_file(study: Study, tmp_path: Path) -> None:
    table = TABLES["tab1"](study)
    text = write_table(table, "tab1", None, "latex")
    path = write_table(table, "tab1", tmp_path / "new", "latex")
    assert path.endswith("new/tab1.tex") and Path(path).read_text() == text


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(
    study: Study, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="file"):
        write_figure(study, FIGURES["fig2"], blocked / "out", ["png"])
    assert blocked.read_text() == ""
