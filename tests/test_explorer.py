"""What the explorer of the book shows of a folder of runs, without a browser."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from fresh_kit import fresh_kit
from study_factory import write_run, write_study

from orthocond.report.study import Study

pytest.importorskip("IPython", reason="the book extra is not installed")

PAGE = "explorer"


@pytest.fixture
def explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page, in a repository without runs."""
    fresh_kit(tmp_path, monkeypatch)
    return importlib.import_module(PAGE)


def written_chart(folder: Path) -> dict:
    """Return the specification that the page loads."""
    text = (folder / "files/explorer.js").read_text()
    return json.loads(text.removeprefix("const explorerChart = ").removesuffix(";\n"))


def test_without_runs_the_page_has_the_command_that_makes_them(explorer: ModuleType) -> None:
    page = explorer.show().data
    assert "No runs yet" in page and "orthocond train" in page


def test_runs_that_all_diverged_are_no_runs(explorer: ModuleType, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/mine", "dbn", "svd", 0, status="diverged")
    assert "No runs yet" in explorer.show().data


def test_every_run_of_every_study_has_its_recorded_curves(
    explorer: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "bn"), seeds=3)
    write_study(tmp_path / "runs/mine", ("svd", "gap"), "gcp", seeds=1)
    write_run(tmp_path / "runs/mine", "dbn", "svd", 0, stem_kernel=11)
    page = explorer.show().data
    chart = written_chart(tmp_path)
    data = chart["data"]["values"]
    (shared,) = (param["value"] for param in chart["params"] if param["name"] == "steps")
    assert [(run["study"], run["method"], run["seed"]) for run in data] == [
        *(("mine (decorrelated BN)", "SVD", seed) for seed in range(3)),
        *(("mine (decorrelated BN)", "BN", seed) for seed in range(3)),
        ("mine (decorrelated BN)", "SVD (11×11 stem)", 0),
        ("mine (GCP)", "SVD", 0),
        ("mine (GCP)", "GAP", 0),
    ]
    (run,) = Study(tmp_path / "runs").select("gcp").runs["svd"]
    place, losses = data[-2]["curves"]["train_loss"]
    assert shared[place] == list(run.metrics["step"])
    assert losses == pytest.approx(list(run.metrics["train_loss"]), rel=1e-3)
    place, _ = data[-2]["curves"]["kappa_support"]
    assert len(shared[place]) == 20 and shared[place][0] == 0
    assert "recalibrated_top1" not in data[-2]["curves"] and "eta" not in data[-2]["curves"]
    assert page.count("<tr data-study=") == len(data) and "<td>–</td>" in page
    assert "commit 0123456" in page and "config " in page


def test_names_are_escaped_in_the_page(explorer: ModuleType, tmp_path: Path) -> None:
    write_study(tmp_path / 'runs/a "b" <c>', ("svd",), seeds=1)
    page = explorer.show().data
    assert "<c>" not in page
    attribute = re.search(r'data-studies="([^"]+)"', page)
    assert attribute and "a \\&quot;b\\&quot; &lt;c&gt;" in attribute[1]


def test_at_first_some_methods_are_shown_and_all_where_these_were_not_run(
    explorer: ModuleType, tmp_path: Path
) -> None:
    def checked() -> list[str]:
        form = explorer.form(explorer.parts(Study(tmp_path / "runs")))
        return re.findall(r'name="method" value="([^"]+)" checked', form)

    write_study(tmp_path / "runs/mine", ("ns", "bn"), seeds=1)
    assert checked() == ["Newton-Schulz", "BN"]
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"), seeds=1)
    assert checked() == ["SVD", "SVD + NOG"]


def test_vega_draws_a_line_per_method_and_a_logarithmic_axis(
    explorer: ModuleType, tmp_path: Path
) -> None:
    vega = pytest.importorskip("vl_convert", reason="the book extra is not installed")
    write_study(tmp_path / "runs/mine", ("svd", "bn", "svd+nog"))
    explorer.show()
    chart = written_chart(tmp_path) | {"width": 400}
    for parameter in chart["params"]:
        if parameter["name"] == "quantity":
            parameter["value"] = "kappa_support"
    drawn = vega.vegalite_to_svg(chart, vl_version="6.1")
    lines = re.findall(r'<path[^>]*stroke="var\(--method-(\d)\)"', drawn)
    assert lines == ["0", "1", "2"]
    assert re.search(r">[1-9]e\+\d<|>[\d.]+e\+\d<", drawn) and "κ on the support" in drawn
