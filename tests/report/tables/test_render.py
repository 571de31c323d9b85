from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from orthocond.errors import UserError
from orthocond.report.paper import PUBLISHED
from orthocond.report.provenance import Provenance
from orthocond.report.registry import TABLES
from orthocond.report.study import Study
from orthocond.report.tables.comparison import only
from orthocond.report.tables.render import TABLE_FORMATS, render, shown, to_records
from orthocond.report.tables.table import Table


def rows_of(markdown: str) -> dict[str, list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("name", ["tab1", "tab2", "tab3", "tab4", "tab5"])
@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_every_table_has_its_rows_in_every_format(name: str, format: str, study: Study) -> None:
    table = TABLES[name](study)
    text = render(table, format)
    for label in table.labels.values():
        assert label in text
    assert "not run here" in text.lower()
    assert "nan" not in text.lower().replace("covariance", "")


def test_mean_and_deviation_share_a_cell_and_the_best_is_marked(study: Study) -> None:
    table = TABLES["tab1"](study)
    rows = rows_of(render(table, "md"))
    assert rows["SVD"][:2] == ["19.99 ± 0.16", "†"]
    assert rows["Newton-Schulz"][0] == "**19.45 ± 0.33**"
    best = table.frame[("here: cifar10-jpeg", "error mean")].idxmin()
    assert rows[table.labels[best]][2].startswith("**")
    assert sum(row[2].startswith("**") for row in rows.values()) == 1


def test_cells_that_our_source_lacks_have_a_footnote_with_a_link(study: Study) -> None:
    table = TABLES["tab4"](study)
    texts = shown(table, str)
    paper = [(group, name) for group, name in texts.columns if group.startswith("paper")]
    for method, column in (("OW", "CIFAR10"), ("NOG", "CIFAR10"), ("OLR", "CIFAR100")):
        cells = [texts.at[f"SVD + {method}", key] for key in paper if key[0] == f"paper: {column}"]
        assert cells == ["†", "†"]
    assert rows_of(render(TABLES["tab2"](study), "md"))["SVD + NOG"][:2] == ["†", "19.15"]
    note = "† Our source of the paper's text lacks this cell; see "
    assert render(table, "md").endswith(f"\n\n{note}[the published paper]({PUBLISHED}).\n")
    (link,) = ET.fromstring(render(table, "html")).iter("a")
    assert (link.text, link.get("href")) == ("the published paper", PUBLISHED)
    latex = render(table, "latex")
    assert "†" not in latex and r"\dag{} Our source" in latex and r" & \dag{} & " in latex
    assert PUBLISHED.replace("_", r"\_") in latex
    assert "†" not in render(table, "csv")


def test_a_table_whose_cells_are_all_known_has_no_footnote(study: Study) -> None:
    for table in (TABLES["tab5"](study), only(TABLES["tab4"](study), ["svd", "nog+ow"])):
        for format in TABLE_FORMATS:
            assert PUBLISHED not in render(table, format) and "†" not in render(table, format)
    absent = only(TABLES["tab4"](study), ["nog"])
    assert "†" in render(absent, "md") and "†" not in render(absent, "csv")


def test_the_highest_accuracy_is_marked_as_best(study: Study) -> None:
    rows = rows_of(render(TABLES["tab5"](study), "md"))
    assert rows["SVD + NOG + OW + OLR"][:3] == ["0", "**73.82**", "**91.57**"]


def test_a_missing_row_is_explained_once_per_group(study: Study) -> None:
    texts = shown(TABLES["tab4"](study), str)
    own = texts.loc["SVD + SN", "here: cifar10-jpeg"]
    assert list(own) == ["not run here", "", ""]


@pytest.mark.parametrize("format", ["md", "latex", "html"])
def test_a_column_that_was_run_for_no_row_is_a_note(format: str, study: Study) -> None:
    table = TABLES["tab1"](study)
    assert "here: CIFAR100" not in shown(table, str).columns.get_level_values(0)
    assert "Not run here: CIFAR100." in render(table, format)
    assert "here: CIFAR100: error mean" in render(table, "csv")
    alone = only(table, ["sn"])  # not run on any of the data sets
    shown_groups = set(shown(alone, str).columns.get_level_values(0))
    assert shown_groups == {"paper: CIFAR100"}
    note = "Not run here: CIFAR100; cifar10-jpeg; cifar10-jpeg, recalibrated."
    assert note in render(alone, format)


def test_one_column_of_a_group_without_a_name_is_left_out_and_no_table_becomes_empty() -> None:
    columns = pd.MultiIndex.from_tuples(
        [("", "gap"), ("", "NOG mean"), ("", "OW mean"), ("", "p (Holm)")],
        names=["source", "statistic"],
    )
    frame = pd.DataFrame([[1.25, 0.5, np.nan, np.nan]], ["a"], columns)
    table = Table("t", frame, {"a": "a"}, {"": {"a": "not run here"}}, Provenance("note"))
    texts = shown(table, str)
    assert texts.iloc[0].to_dict() == {
        **{("", "gap (points)"): "1.2", ("", "NOG"): "+0.5", ("", "p (Holm)"): ""}
    }
    assert "Not run here: OW." in render(table, "md")
    unrun = replace(table, frame=frame[[("", "OW mean")]] * np.nan)
    assert list(shown(unrun, str).iloc[0]) == ["not run here"]


def test_numbers_are_rounded_for_people_but_not_in_csv_and_json() -> None:
    columns = pd.MultiIndex.from_tuples(
        [("", "images"), ("", "failures"), ("x", "FP (ms) median"), ("x", "FP (ms) q1"),
         ("x", "FP (ms) q3"), ("x", "train (%)")],
        names=["source", "statistic"],
    )  # fmt: skip
    row = [1281167, 0.4, 184.9012, 95.3712, 1012.345, 69.4149]
    frame = pd.DataFrame([row], ["a"], columns)
    table = Table("t", frame, {"a": "a"}, {}, Provenance("note"))
    texts = list(shown(table, str).iloc[0])
    assert texts == ["1,281,167", "0.400", "185 [95.4, 1,012]", "69.4"]
    assert list(map(float, render(table, "csv").splitlines()[1].split(",")[2:])) == row
    assert list(to_records(table)["rows"][0].values())[2:] == row


def test_csv_holds_the_numbers_unrounded(study: Study) -> None:
    table = TABLES["tab1"](study)
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    mean = float(rows[0]["here: cifar10-jpeg: error mean"])
    assert mean == pytest.approx(
        table.frame.at["svd", ("here: cifar10-jpeg", "error mean")], rel=1e-8
    )
    assert rows[0]["here: CIFAR100: error mean"] == "not run here"
    assert rows[1]["here: cifar10-jpeg: error mean"] == ""


def test_html_is_well_formed_and_escaped(study: Study) -> None:
    table = replace(TABLES["tab1"](study), title="a < b & c")
    root = ET.fromstring(render(table, "html"))
    assert root.findtext(".//caption") == "a < b & c"
    assert len(root.findall(".//tbody/tr")) == len(table.frame)
    box = root.find("div")  # scrolls; the notes stay in sight
    assert box is not None and box.find("table") is not None and box.find(".//p") is None
    notes, fold = root.find("p"), root.find("details")
    assert notes is not None and notes.text and "commit" not in notes.text
    assert fold is not None and "commit 0123456" in "".join(fold.itertext())


def test_csv_says_that_a_mean_was_not_run_and_leaves_the_spread_of_one_seed_blank() -> None:
    names = ["NOG mean", "NOG low", "NOG high", "OW mean", "OW low", "OW high"]
    columns = pd.MultiIndex.from_product([[""], names], names=["source", "statistic"])
    frame = pd.DataFrame([[1.5, *5 * [np.nan]], [2.5, *5 * [np.nan]]], ["a", "b"], columns)
    absent = {"": dict.fromkeys("ab", "not run here")}
    table = Table("t", frame, {"a": "a", "b": "b"}, absent, Provenance("note"))
    first, *rows = csv.reader(io.StringIO(render(table, "csv")))
    assert first[2:] == names
    assert [row[2:] for row in rows] == [
        ["1.5", "", "", *3 * ["not run here"]],
        ["2.5", "", "", *3 * ["not run here"]],
    ]


def test_latex_prints_with_pdflatex_and_has_no_line_of_groups_without_a_name() -> None:
    columns = pd.MultiIndex.from_tuples([("", "kappa_eps"), ("", "gap")])
    frame = pd.DataFrame([[1.25e4, 2.0]], ["a"], columns)
    label = r"SVD (11×11 stem) 50% a_b^~\ ± <|>"
    text = render(Table("κ", frame, {"a": label}, {}, Provenance("{note}")), "latex")
    assert text.isascii()
    for part in (
        r"SVD (11$\times$11 stem) 50\% a\_b\textasciicircum{}\textasciitilde{}",
        r"\textbackslash{} $\pm$ $<$$|$$>$ & 1.2e+04 & 2.0 \\",
        r"\caption{$\kappa$. \{note\}.}",
        r"$\kappa$ with $\varepsilon$ & gap (points) \\",
    ):
        assert part in text
    assert r"\multicolumn" not in text


def test_a_bar_in_a_label_ends_no_cell_of_a_markdown_table() -> None:
    frame = pd.DataFrame([[2.0]], ["a"], pd.MultiIndex.from_tuples([("", "gap")]))
    text = render(Table("t", frame, {"a": "mine|yours"}, {}, Provenance("note")))
    (row,) = (line for line in text.splitlines() if "mine" in line)
    assert row.split() == ["|", r"mine\|yours", "|", "2.0", "|"]


def test_latex_special_characters_are_escaped(study: Study) -> None:
    text = render(TABLES["tab1"](study), "latex")
    assert r"\toprule" in text and r"$19.99" not in text and r"19.99 $\pm$ 0.16" in text
    assert r"error (\%)" in text and text.count(r"\begin{tabular}") == 1


def test_records_are_plain_json(study: Study) -> None:
    table = TABLES["tab1"](study)
    record = json.loads(json.dumps(to_records(table), allow_nan=False))
    row = record["rows"][0]
    assert row["method"] == "svd" and row["paper: CIFAR100: error min"] is None
    assert np.isclose(
        row["here: cifar10-jpeg: error mean"],
        table.frame.at["svd", ("here: cifar10-jpeg", "error mean")],
    )
    assert {"title", "note", "remarks", "commands", "runs"} <= set(record)


def test_an_unknown_format_is_refused(study: Study) -> None:
    with pytest.raises(UserError, match=r"unknown format 'htm': .*did you mean 'html'"):
        render(TABLES["tab1"](study), "htm")
