"""Several folders of runs that are read as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_factory import write_run, write_study

from orthocond.errors import UserError
from orthocond.report.study import Study


def test_studies_of_one_name_are_read_as_one(tmp_path: Path) -> None:
    write_study(tmp_path / "a/mine", ("svd",), seeds=2)
    write_run(tmp_path / "b/mine", "dbn", "svd", 2)
    write_run(tmp_path / "b/other", "dbn", "bn", 0)
    study = Study(tmp_path / "a", also=[tmp_path / "b"])
    assert study.names() == ["mine", "other"]
    own = study.select("dbn", name="mine")
    assert own.seeds == [0, 1, 2] and own.set_aside == 0


def test_studies_of_one_name_and_other_data_stay_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a/mine", "dbn", "svd", 0)
    write_run(tmp_path / "b/mine", "dbn", "svd", 0, data="leaves")
    study = Study(tmp_path / "a", also=[tmp_path / "b"])
    assert study.names() == ["mine/cifar10-jpeg", "mine/leaves"]


def test_a_folder_is_read_once_however_often_it_is_named(tmp_path: Path) -> None:
    write_study(tmp_path / "a/mine", ("svd",))
    inside = tmp_path / "a/mine"
    assert len(Study(tmp_path / "a", also=[inside, tmp_path / "a/../a"]).runs) == 2


def test_the_same_run_in_two_folders_is_refused(tmp_path: Path) -> None:
    for folder in "ab":
        write_run(tmp_path / folder / "mine", "dbn", "svd", 0)
    with pytest.raises(UserError, match=r"the same run twice, '.*a/mine/.*' and '.*b/mine/.*'"):
        Study(tmp_path / "a", also=[tmp_path / "b"])


def test_without_some_runs_a_study_is_as_if_they_were_not_there(tmp_path: Path) -> None:
    write_study(tmp_path / "mine", ("svd",))
    write_study(tmp_path / "mine", ("svd",), data="leaves", seeds=3)
    part = Study(tmp_path).keeping(lambda run: run.config["data"]["name"] == "cifar10-jpeg")
    assert part.names() == ["mine"] and part.data_sets("dbn") == ["cifar10-jpeg"]
    assert part.main("dbn", "leaves") is None
