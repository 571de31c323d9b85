from __future__ import annotations

from pathlib import Path

import pandas as pd
from study_factory import COMMIT, write_run, write_study

from orthocond.report.provenance import as_text, attach
from orthocond.report.study import Study


def test_a_frame_says_its_runs_what_is_missing_and_how_to_make_it(study: Study) -> None:
    selection = study.select("dbn", ["svd", "svd+nog", "svd+ol"])
    frame = attach(pd.DataFrame({"a": [1]}), selection, remark="Not smoothed")
    assert frame.attrs["note"] == f"{selection.note}. Not smoothed"
    assert frame.attrs["remarks"] == [
        "cifar10-jpeg: not run here: SVD + OL",
        "cifar10-jpeg: 1 of 3 runs of SVD + NOG diverged and are left out",
    ]
    assert frame.attrs["commands"] == [selection.command]
    names = [run["run"] for run in frame.attrs["runs"]]
    assert len(names) == 4 and len(set(names)) == 4
    assert as_text(frame).count(COMMIT) == 4


def test_means_of_different_seeds_are_said_to_be(tmp_path: Path) -> None:
    write_study(tmp_path, ("svd", "bn"), seeds=3)
    assert attach(pd.DataFrame(), Study(tmp_path).select("dbn")).attrs["remarks"] == []
    write_run(tmp_path, "dbn", "ns", 1)
    remarks = attach(pd.DataFrame(), Study(tmp_path).select("dbn")).attrs["remarks"]
    assert [text.partition(":")[2] for text in remarks] == [
        " not all methods have the same seeds (1 to 3 each): two are compared fairly by their "
        "differences at equal seeds"
    ]
