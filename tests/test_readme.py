"""What the README shows of runs is what they say: mended by ``make readme``."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import readme

from orthocond.report.figures.findings import FIGURE
from orthocond.report.findings import effects
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.study import Study
from orthocond.report.tables import differences, overview

matplotlib.use("agg")


def test_tables_are_what_their_commands_print() -> None:
    text = readme.README.read_text()
    assert readme.TABLE.search(text)
    assert readme.with_tables(text) == text


def test_the_verdicts_are_those_of_the_committed_runs() -> None:
    text = readme.README.read_text()
    block = readme.LEDGER.search(text)
    assert block and block[0].count("\n- **") == 3 and readme.with_verdicts(text) == text
    assert sum(map(int, re.findall(r"\((\d+) claims:", block[0]))) == len(CLAIMS)


def test_it_is_short_and_its_tables_are_narrow() -> None:
    lines = readme.README.read_text().splitlines()
    assert len(lines) <= 120
    assert max(line.count(" | ") for line in lines if line.startswith("|")) <= 5


def test_the_rivals_are_as_measured() -> None:
    text = readme.README.read_text()
    block = readme.RIVALS.search(text)
    assert block and block[0].count("\n| ") == 7 and readme.with_rivals(text) == text


def test_figures_are_drawn_from_the_numbers_that_the_runs_have(tmp_path: Path) -> None:
    drawn = {file.name: file for file in readme.draw(tmp_path)}
    assert {file.name for file in readme.FIGURES.iterdir()} == set(drawn)
    for name, file in drawn.items():  # an SVG's paths depend on matplotlib's version
        if file.suffix == ".csv":
            assert (readme.FIGURES / name).read_bytes() == file.read_bytes()
        else:
            assert f"{readme.FIGURES.relative_to(readme.ROOT)}/{name}" in readme.README.read_text()


def test_the_runs_support_each_sentence_on_the_findings() -> None:
    pages = [readme.README.read_text(), (readme.ROOT / "book/index.md").read_text()]
    said = [re.findall(r"^- \*\*(\S+)\*\*: ((?:.+\n)(?:  .+\n)*)", page, re.M) for page in pages]
    first, second = ({name: " ".join(text.split()) for name, text in own} for own in said)
    found = effects(Study(readme.ROOT / "runs"), FIGURE.methods)
    rows = {name: own.set_index("method") for name, own in found.groupby("study")}
    for name, text in second.items():
        seeds = f"{rows['cifar10-few'].at['svd+nog', 'n']:.0f}"
        text = text.replace('{few.at[nog, "n"]:.0f}', seeds)  # computed by the page
        assert first[name] == text.removesuffix('"""')
    assert set(first) == set(rows)
    assert found.loc[found["method"] == "svd+olr", "mean"].abs().max() < 0.35
    signs = {study: own["mean"]["svd+nog"] > 0 for study, own in rows.items()}
    assert [study for study, raised in signs.items() if not raised] == ["tiny-imagenet-cpu"]


def test_the_runs_support_the_condition_numbers_that_it_gives() -> None:
    study = Study(readme.ROOT / "runs")
    divided, multiplied = [], []
    for name in study.names("dbn"):
        frame = overview.of_task(study, "dbn", name=name).frame[""]
        if "svd+nog" in frame.index:
            plain, nog = frame.loc["svd"], frame.loc["svd+nog"]
            divided.append(round(plain["kappa_support"] / nog["kappa_support"]))
            multiplied.append(round(nog["kappa_eps"] / plain["kappa_eps"]))
    text = " ".join(readme.README.read_text().split())
    assert f"of the covariance by {min(divided)} to {max(divided)}." in text
    assert f"of that sum by {min(multiplied)} to {max(multiplied)}." in text


def _against_svd(study: str, task: str) -> pd.DataFrame:
    """Differences in error between each method and plain SVD, a row a method."""
    frame = differences.of_task(Study(readme.ROOT / "runs" / study), task).frame[""]
    frame = frame[frame.index.str.endswith(" - svd")]
    return frame.set_index(frame.index.str.removesuffix(" - svd"))


@pytest.mark.parametrize(
    ("study", "task", "better", "worse"),
    [
        ("cifar10-cpu", "dbn", ["svd+nog+ow+olr", "svd+sn"], ["svd+nog", "svd+nog+olr"]),
        ("cifar10-few-h200", "dbn", ["svd+nog+ow"], ["svd+nog"]),
        ("tiny-imagenet-cpu", "gcp", ["svd+nog"], ["svd+nog+ow+olr"]),
        ("tiny32-cpu", "dbn", [], ["svd+nog"]),
    ],
)
def test_the_runs_support_the_treatments_that_the_guide_recommends(
    study: str, task: str, better: list[str], worse: list[str]
) -> None:
    found = _against_svd(study, task)
    assert (found.loc[better, "difference high"] < 0).all()
    assert (found.loc[worse, "difference low"] > 0).all()


def test_no_treatment_helped_on_a_hundred_classes() -> None:
    found = _against_svd("tiny32-cpu", "dbn")
    treated = found[found.index.str.startswith("svd+")]
    assert {"svd+nog", "svd+olr", "svd+ow", "svd+nog+ow+olr"} <= set(treated.index)
    assert (treated["difference mean"] > 0).all()
