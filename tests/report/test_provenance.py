from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from study_factory import COMMIT, write_run, write_study

from orthocond.report.provenance import Provenance
from orthocond.report.study import Study


def test_provenance_names_the_runs_and_the_command_for_missing_ones(study: Study) -> None:
    selection = study.select("dbn", ["svd", "svd+nog", "svd+ol"])
    provenance = Provenance.of(selection, how="Not smoothed", more=["A last remark"])
    assert provenance.note == f"{selection.note}. Not smoothed"
    regime = provenance.remarks[0]
    assert regime.startswith("dbn-study: SVD ends with ") and "train (while training)" in regime
    assert provenance.remarks[1:] == (
        "cifar10-jpeg: not run here: SVD + OL",
        "cifar10-jpeg: 1 of 3 runs of SVD + NOG diverged and are left out",
        "A last remark",
    )
    assert provenance.shown == ["Not smoothed", *provenance.remarks[1:]]
    assert provenance.commands == (selection.command,)
    names = [source.run for source in provenance.runs]
    assert len(names) == 4 and len(set(names)) == 4
    assert provenance.text().count(COMMIT) == 4


def test_studies_commits_and_other_runs_are_folded_away(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "bn"))
    write_run(tmp_path, "dbn", "bn", 5, epochs=9)
    selection = Study(tmp_path).select("dbn")
    source = Provenance.of(selection, how="1 < 2")
    left_out = f"{selection.title}: 1 runs in another configuration or study than this are left out"
    assert source.shown == ["1 < 2"] and left_out in source.remarks
    page = ET.fromstring(source.folded)
    assert (page.tag, page.get("open")) == ("details", None)
    shown = [paragraph.text for paragraph in page.iter("p")]
    assert shown == [f"{text}." for text in (selection.note, source.remarks[0], left_out)]
    assert Provenance("Not smoothed").folded == ""


def test_a_remark_says_that_methods_have_different_seeds(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "bn"), seeds=3)
    assert Provenance.of(Study(tmp_path).select("dbn"), how="").remarks[1:] == ()
    write_run(tmp_path, "dbn", "ns", 1)
    remarks = Provenance.of(Study(tmp_path).select("dbn"), how="").remarks[1:]
    assert [text.partition(":")[2] for text in remarks] == [
        " not all methods have the same seeds (1 to 3 each): two are compared fairly by their "
        "differences at equal seeds"
    ]
