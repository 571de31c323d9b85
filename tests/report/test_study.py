from __future__ import annotations

from pathlib import Path

import pytest
from study_factory import write_run, write_study

from orthocond.artifacts.run_writer import CorruptRun
from orthocond.errors import UserError
from orthocond.report.study import MissingRuns, Study


def test_a_study_is_a_folder_of_runs_or_a_folder_of_studies(studies: Path) -> None:
    assert len(Study(studies).runs) == 11 + 8
    assert len(Study(studies / "dbn-study").runs) == 11
    assert Study(studies).data_sets("gcp") == ["tiny-imagenet-100"]


def test_a_selection_holds_the_runs_by_method_and_seed(study: Study) -> None:
    selection = study.select("dbn", ["ns", "svd", "svd+sn"])
    assert list(selection.runs) == ["ns", "svd"]
    assert [run.config["seed"] for run in selection.runs["svd"]] == [0, 1]
    assert selection.missing == ("svd+sn",)
    assert "--method sn --seeds 0-1" in selection.command
    assert selection.seeds == [0, 1]
    assert selection.note.startswith("dbn-study: cifar10-jpeg, small, seeds 0-1, commit 0123456,")


def test_a_diverged_run_is_counted_and_left_out(study: Study) -> None:
    selection = study.select("dbn", ["svd+nog"])
    assert [run.config["seed"] for run in selection.runs["svd+nog"]] == [0, 1]
    assert selection.diverged == {"svd+nog": 1}


def test_runs_of_another_configuration_are_set_aside(tmp_path: Path) -> None:
    write_study(tmp_path / "a", ("svd", "ns"), seeds=1)
    write_run(tmp_path / "a", "dbn", "bn", 0, lr=0.05)
    write_run(tmp_path / "b", "dbn", "svd", 0)  # a copy elsewhere is not a second seed
    selection = Study(tmp_path).select("dbn")
    assert sorted(selection.runs) == ["ns", "svd"] and selection.set_aside == 2
    assert len(selection.runs["svd"]) == 1


def test_a_selection_without_runs_names_the_command(study: Study, tmp_path: Path) -> None:
    with pytest.raises(MissingRuns, match=r"orthocond train --preset quick --method svd --seeds 0"):
        Study(tmp_path).select("dbn")
    with pytest.raises(MissingRuns, match=r"--task dbn --data folder:PATH/cifar10-jpeg .*stiefel"):
        study.select("dbn", ["svd+ow-stiefel"])


def test_a_study_can_be_limited_to_one_data_set(studies: Path) -> None:
    assert Study(studies, "tiny-imagenet-100").select("gcp").data == "tiny-imagenet-100"
    with pytest.raises(MissingRuns):
        Study(studies, "tiny-imagenet-100").select("dbn")
    with pytest.raises(UserError, match=r"unknown data set 'cifar10'.*did you mean 'cifar10-jpeg'"):
        Study(studies, "cifar10")


def test_a_missing_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of runs '.*nowhere'"):
        Study(tmp_path / "nowhere")


def test_an_altered_run_is_refused_by_name(tmp_path: Path) -> None:
    run = write_run(tmp_path, "dbn", "svd", 0)
    table = run / "conditioning.csv"
    table.write_text(table.read_text().replace("train", "trian", 1))
    with pytest.raises(CorruptRun, match=r"svd-s0.*conditioning\.csv"):
        Study(tmp_path)
